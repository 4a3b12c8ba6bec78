package intake

import (
	"fmt"
	"testing"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// What it costs to read a row of 40 columns as a customer.
func BenchmarkReadRow(b *testing.B) {
	columns := []column{{header: "external_id", target: campaign.ImportKey}, {header: "msisdn", target: campaign.ImportNumber}, {header: "org_unit", target: campaign.ImportUnit}, {header: "time_zone", target: campaign.ImportZone}}
	fields := [][]byte{[]byte("c00012345"), []byte("13800138000"), []byte("operator/north/harbin"), []byte("Asia/Shanghai")}
	for i := range 36 {
		typ, field := store.AttributeInt, fmt.Sprint(i*9173)
		switch {
		case i%12 == 1:
			typ, field = store.AttributeFloat, "127.35"
		case i%12 == 2:
			typ, field = store.AttributeText, "student"
		case i%12 == 3:
			typ, field = store.AttributeBool, "true"
		case i%18 == 4:
			typ, field = store.AttributeTimestamp, "2019-05-04T03:02:01+08:00"
		}
		name := fmt.Sprintf("a%d", i)
		columns = append(columns, column{header: name, target: name, attribute: store.Attribute{Name: name, Type: typ}})
		fields = append(fields, []byte(field))
	}
	r, err := newRowReader(columns, campaign.ImportOptions{Unit: "operator", TimeZone: "Asia/Shanghai"}, "CN", unitRule{fresh: true})
	if err != nil {
		b.Fatal(err)
	}
	r.row.Fields = fields
	b.ReportAllocs()
	for b.Loop() {
		if reject, ok := r.read(nil); !ok {
			b.Fatal(reject)
		}
	}
}
