package api

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/intake"
	"github.com/musterhq/muster/store"
)

// newImports is an environment whose orchestrator works on imports at once.
func newImports(t *testing.T) *env {
	t.Helper()
	e := newEnv(t)
	e.server.spoolDir = t.TempDir()
	e.orch.importing = func(ctx context.Context, id string) error {
		_, err := intake.Run(ctx, e.store, id, "", nil)
		return err
	}
	require.NoError(t, e.store.DeclareAttributes(context.Background(), campaign.Actor{}, []store.Attribute{
		{Name: "age", Type: store.AttributeInt, Meaning: "Age"}, {Name: "name", Type: store.AttributeText, Meaning: "Name", PII: true},
	}))
	return e
}

const importQuery = "?name=customers.csv&time_zone=Asia/Shanghai&unit=" + string(here)

func (e *env) upload(login, query, body string) reply {
	e.t.Helper()
	return e.send(login, "POST", "/v1/imports"+query, body, "Content-Type", "application/octet-stream")
}

func TestImports(t *testing.T) {
	e := newImports(t)
	j := into[Import](t, e.upload("operator", importQuery+"&dry_run=true", "external_id,age,name\na,31,=HYPERLINK()\nb,old,x\n"+strings.Repeat("c,1,x\n", 60)+""))
	require.Equal(t, "refused", j.State)
	require.Equal(t, string(campaign.CodeImportRefused), j.Error.Code)

	j = into[Import](t, e.upload("operator", importQuery+"&dry_run=true&bad_share=0.5&map=alter=age", "external_id,alter,name\na,31,x\nb,=1+1,x\nc,7,x\n"))
	require.Equal(t, "checked", j.State)
	require.EqualValues(t, 1, j.Rejected)
	require.Zero(t, e.number(`SELECT count(*) FROM customer WHERE external_id IN ('a', 'b', 'c')`))
	r := e.send("operator", "GET", "/v1/imports/"+j.ID+"/rejects", nil)
	require.Equal(t, "text/csv", r.header.Get("Content-Type"))
	require.Contains(t, string(r.body), "'=1+1", "a spreadsheet takes it for no formula")
	require.Contains(t, string(r.body), "3,alter,")
	j = into[Import](t, e.send("operator", "POST", "/v1/imports/"+j.ID+"/start", nil))
	require.Equal(t, []any{"done", int64(3), int64(2), int64(1)}, []any{j.State, j.Rows, j.Created, j.Rejected})
	require.EqualValues(t, 2, e.number(`SELECT count(*) FROM customer WHERE external_id IN ('a', 'b', 'c')`))
	require.EqualValues(t, campaign.CodeStateConflict, e.send("operator", "POST", "/v1/imports/"+j.ID+"/start", nil).problem(t).Code)
	require.EqualValues(t, campaign.CodeStateConflict, e.send("operator", "POST", "/v1/imports/"+j.ID+"/cancel", nil).problem(t).Code)

	again := into[Import](t, e.upload("operator", importQuery+"&bad_share=0.5&map=alter=age", "external_id,alter,name\na,31,x\nb,=1+1,x\nc,7,x\n"))
	require.Equal(t, j.ID, again.Already)
	require.Equal(t, j.Created, again.Created)

	page := into[ImportPage](t, e.send("operator", "GET", "/v1/imports?limit=2", nil))
	require.Len(t, page.Items, 2)
	require.Equal(t, again.ID, page.Items[0].ID)
	require.Len(t, into[ImportPage](t, e.send("operator", "GET", "/v1/imports?cursor="+page.Next, nil)).Items, 1)

	for login, status := range map[string]int{"planner": http.StatusForbidden, "": http.StatusUnauthorized} {
		require.Equal(t, status, e.upload(login, importQuery, "external_id\na\n").status, login)
		require.Equal(t, status, e.send(login, "GET", "/v1/imports/"+j.ID, nil).status, login)
	}
	require.Equal(t, http.StatusForbidden, e.upload("operator", strings.ReplaceAll(importQuery, string(here), string(there)), "external_id\na\n").status)

	// While nobody can be told, the import waits; a worker finds it.
	e.orch.importing = nil
	j = into[Import](t, e.upload("operator", importQuery, "external_id\nw\n"))
	require.Equal(t, "waiting", j.State)
	// What waits of a tenant takes up a part of the folder.
	e.exec(`UPDATE import_job SET total_bytes = $2 WHERE id = $1`, j.ID, int64(maxSpoolOfOne-100))
	require.EqualValues(t, campaign.CodeRateLimited, e.upload("operator", importQuery, "external_id\n"+strings.Repeat("a\n", 100)).problem(t).Code)
	file, err := os.CreateTemp(e.server.spoolDir, "upload-*")
	require.NoError(t, err)
	_, err = file.WriteString("external_id\nv\n")
	require.NoError(t, err)
	arrived := context.WithValue(t.Context(), requestKey{}, &request{resultID: uuid.NewString(), user: store.User{ID: e.users["operator"]}, upload: &upload{File: file, size: 101}})
	_, err = e.server.ImportCustomers(arrived, ImportCustomersRequestObject{Params: ImportCustomersParams{Name: "c.csv", Unit: here, TimeZone: "Asia/Shanghai"}})
	require.Equal(t, campaign.CodeRateLimited, campaign.CodeOf(err), "others came at the same time")
	require.NoError(t, file.Close())
	into[Import](t, e.upload("operator", importQuery, "external_id\nv\n"))
	require.Equal(t, "cancelled", into[Import](t, e.send("operator", "POST", "/v1/imports/"+j.ID+"/cancel", nil)).State)
	_, err = os.Stat(filepath.Join(os.TempDir(), "import-"+j.ID))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// The bad files of the list of abuses, and good ones that look alike.
func TestImportedFiles(t *testing.T) {
	e := newImports(t)
	gbk, err := simplifiedchinese.GBK.NewEncoder().String("external_id,name\ng1,王小明\ng2,李雷\n")
	require.NoError(t, err)
	utf16, err := unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewEncoder().String("external_id,name\nu1,王小明\n")
	require.NoError(t, err)
	zipped := func(name, content string) string {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		f, err := w.Create(name)
		require.NoError(t, err)
		_, err = f.Write([]byte(content))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return b.String()
	}
	bomb := func() string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, err := w.Write([]byte("external_id\n" + strings.Repeat("0\n", 60<<20)))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return b.String()
	}
	for name, tt := range map[string]struct {
		query, body string
		status      int
		want        string // code, or state and counts: rows, created, rejected
	}{
		"empty":             {"", "", 422, "empty_file"},
		"header alone":      {"", "external_id,age\n", 202, "refused empty_file"},
		"a zip of a table":  {"", zipped("a.csv", "external_id\na\n"), 422, "archive_rejected"},
		"a way out":         {"", zipped("../../etc/passwd", "x"), 422, "archive_rejected"},
		"no text":           {"", "\x00\x01\x02\xff\xfe binary \x00", 422, ""},
		"a page":            {"", "<html><body>no</body></html>", 422, "format_unsupported"},
		"gzip bomb":         {"", bomb(), 202, "refused archive_rejected"},
		"no key":            {"", "age\n1\n", 202, "refused import_refused"},
		"unknown column":    {"", "external_id,agee\na,1\n", 202, "refused import_refused"},
		"wrong delimiter":   {"&delimiter=abc", "external_id\na\n", 400, "invalid_parameter"},
		"wrong zone":        {"&time_zone=Mars", "external_id\na\n", 400, "invalid_parameter"},
		"share over 1":      {"&bad_share=2", "external_id\na\n", 400, "invalid_parameter"},
		"map without mean":  {"&map=age", "external_id\na\n", 400, "invalid_parameter"},
		"gbk":               {"", gbk, 202, "done 2 2 0"},
		"utf-16":            {"", utf16, 202, "done 1 1 0"},
		"bom, mixed ends":   {"", "\ufeffexternal_id,age\r\nm1,1\nm2,2\rm3,3\r\n", 202, "done 3 3 0"},
		"quoted newline":    {"", "external_id,name\nq1,\"a\nb\"\nq2,\"say \"\"hi\"\"\"\n", 202, "done 2 2 0"},
		"open quote":        {"&bad_share=1", "external_id,name\no1,x\no2,\"never ends\n", 202, "done 2 1 1"},
		"phones":            {"&bad_share=1", "external_id,msisdn\np1,+8613800138000\np2,０１３９\np3,1.38E+10\np4,11111111111\np5,+86 138 0013 8001\np6,0086-13800138002\np7,021-55554444\n", 202, "done 7 3 4"},
		"phone three ways":  {"&bad_share=1", "external_id,msisdn\nt1,8613700137000\nt2,+86 137 0013 7000\nt3,００８６１３７００１３７０００\n", 202, "done 3 1 2"},
		"a very long row":   {"&bad_share=1", "external_id,name\nl1,x\nl2," + strings.Repeat("y", 2<<20) + "\nl3,x\n", 202, "done 3 2 1"},
		"formulas are text": {"", "external_id,name\nf1,=HYPERLINK()\nf2,@x\nf3,＝1\n", 202, "done 3 3 0"},
	} {
		t.Run(name, func(t *testing.T) {
			query := importQuery
			if strings.Contains(tt.query, "time_zone") {
				query = strings.Replace(query, "&time_zone=Asia/Shanghai", "", 1)
			}
			r := e.upload("operator", query+tt.query, tt.body)
			require.Equal(t, tt.status, r.status, string(r.body))
			if r.status != http.StatusAccepted {
				if tt.want != "" {
					require.EqualValues(t, tt.want, r.problem(t).Code)
				}
				return
			}
			j := into[Import](t, r)
			got := fmt.Sprint(j.State, " ", j.Rows, " ", j.Created, " ", j.Rejected)
			if j.Error != nil {
				got = j.State + " " + j.Error.Code
			}
			require.Equal(t, tt.want, got, string(r.body))
		})
	}
	// Those who may send nothing are told before a byte is taken, and so are too many at once.
	var operator string
	require.NoError(t, e.store.Pool().QueryRow(context.Background(), `SELECT id::text FROM app_user WHERE login = 'operator'`).Scan(&operator))
	release, err := e.server.uploading.take(operator)
	require.NoError(t, err)
	second, err := e.server.uploading.take(operator)
	require.NoError(t, err)
	r := e.upload("operator", importQuery, "external_id\na\n")
	require.Equal(t, http.StatusTooManyRequests, r.status, string(r.body))
	release()
	second()

	// However slowly it comes, a file ends with the time of its request; one that does not tell its
	// size may be as large as any.
	for _, tt := range []struct {
		within       time.Duration
		limit, tells int64
		want         campaign.Code
	}{{0, 100, 1, campaign.CodeMalformedBody}, {time.Minute, maxSpool + 1, -1, campaign.CodeRateLimited}, {time.Minute, 100, 1, ""}} {
		ctx, cancel := context.WithTimeout(t.Context(), tt.within)
		defer cancel()
		req := httptest.NewRequestWithContext(ctx, "POST", "/v1/imports", strings.NewReader("a"))
		req.Header.Set("Content-Type", "application/octet-stream")
		req.ContentLength = tt.tells
		_, drop, err := e.server.spool(echo.New().NewContext(req, httptest.NewRecorder()), tt.limit)
		require.Equal(t, tt.want, campaign.CodeOf(err))
		if err == nil {
			drop()
		}
	}

	e.server.uploads["importCustomers"] = 100
	elsewhere := strings.ReplaceAll(importQuery, string(here), string(there))
	require.Equal(t, http.StatusForbidden, e.upload("operator", elsewhere, "external_id\n"+strings.Repeat("a\n", 100)).status)
	r = e.upload("operator", importQuery, "external_id\n"+strings.Repeat("a\n", 100))
	require.Equal(t, http.StatusRequestEntityTooLarge, r.status)
	require.EqualValues(t, campaign.CodeFileTooLarge, r.problem(t).Code)
}
