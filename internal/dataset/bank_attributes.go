package dataset

import (
	"strconv"
	"strings"
)

// bankHeader are the columns of bank-additional-full.csv.
var bankHeader = []string{
	"age", "job", "marital", "education", "default", "housing", "loan", "contact", "month", "day_of_week", "duration",
	"campaign", "pdays", "previous", "poutcome", "emp.var.rate", "cons.price.idx", "cons.conf.idx", "euribor3m", "nr.employed", "y",
}

// The columns that the records are made of.
const (
	bankMonth     = 8
	bankDayOfWeek = 9
	bankDuration  = 10
	bankCampaign  = 11
	bankY         = 20
)

// bankAttribute is an attribute and the column that it is read from. The file
// codes a missing category as "unknown", which is kept as a category of its own.
type bankAttribute struct {
	Attribute
	column int
	parse  func(string) (any, error)
}

// bankAttributes are all the input variables but `duration`: that one is known
// only after the call and belongs to Recorded, as the outcome does.
var bankAttributes = []bankAttribute{
	{Attribute{Name: "age", Type: Int, Unit: "years", Meaning: "Age", MeaningZh: "年龄"}, 0, parseInt},
	{Attribute{Name: "job", Type: Text, Meaning: "Type of job", MeaningZh: "职业类别"}, 1, parseText},
	{Attribute{Name: "marital", Type: Text, Meaning: "Marital status; divorced includes widowed", MeaningZh: "婚姻状况(离异含丧偶)"}, 2, parseText},
	{Attribute{Name: "education", Type: Text, Meaning: "Level of education", MeaningZh: "受教育程度"}, 3, parseText},
	{Attribute{Name: "in_default", Type: Text, Meaning: "Has credit in default: yes, no or unknown", MeaningZh: "是否有信用违约(yes/no/unknown)"}, 4, parseText},
	{Attribute{Name: "housing", Type: Text, Meaning: "Has a housing loan: yes, no or unknown", MeaningZh: "是否有住房贷款(yes/no/unknown)"}, 5, parseText},
	{Attribute{Name: "loan", Type: Text, Meaning: "Has a personal loan: yes, no or unknown", MeaningZh: "是否有个人贷款(yes/no/unknown)"}, 6, parseText},
	{Attribute{Name: "contact_type", Type: Text, Meaning: "Kind of line on which the campaign's last call was made: cellular or telephone", MeaningZh: "本次活动最后一次外呼的线路类型", PostContact: true}, 7, parseText},
	{Attribute{Name: "contact_month", Type: Text, Meaning: "Month of the campaign's last call", MeaningZh: "本次活动最后一次外呼的月份", PostContact: true}, bankMonth, parseText},
	{Attribute{Name: "contact_day", Type: Text, Meaning: "Day of the week of the campaign's last call", MeaningZh: "本次活动最后一次外呼的星期", PostContact: true}, bankDayOfWeek, parseText},
	{Attribute{Name: "campaign_contacts", Type: Int, Unit: "contacts", Meaning: "Contacts made in the campaign, the last one included", MeaningZh: "本次活动内的接触次数(含最后一次)", PostContact: true}, bankCampaign, parseInt},
	{Attribute{Name: "pdays", Type: Int, Unit: "days", Meaning: "Days since the last contact of a previous campaign; empty when there was none (999 in the published file)", MeaningZh: "距上一次活动最后接触的天数;未接触过为空(原始文件记为 999)"}, 12, parsePdays},
	{Attribute{Name: "previous_contacts", Type: Int, Unit: "contacts", Meaning: "Contacts made in previous campaigns", MeaningZh: "以往活动的接触次数"}, 13, parseInt},
	{Attribute{Name: "previous_outcome", Type: Text, Meaning: "Outcome of the previous campaign: success, failure or nonexistent", MeaningZh: "上一次活动的结果"}, 14, parseText},
	{Attribute{Name: "emp_var_rate", Type: Float, Unit: "%", Meaning: "Employment variation rate, quarterly", MeaningZh: "就业变动率(季度)"}, 15, parseFloat},
	{Attribute{Name: "cons_price_idx", Type: Float, Unit: "index", Meaning: "Consumer price index, monthly", MeaningZh: "消费者价格指数(月度)"}, 16, parseFloat},
	{Attribute{Name: "cons_conf_idx", Type: Float, Unit: "index", Meaning: "Consumer confidence index, monthly", MeaningZh: "消费者信心指数(月度)"}, 17, parseFloat},
	{Attribute{Name: "euribor3m", Type: Float, Unit: "%", Meaning: "Euribor rate at three months, daily", MeaningZh: "三个月期欧元同业拆借利率(日)"}, 18, parseFloat},
	{Attribute{Name: "nr_employed", Type: Float, Unit: "thousand people", Meaning: "Number of people employed, quarterly", MeaningZh: "就业人数(季度)"}, 19, parseFloat},
}

func parseText(s string) (any, error) { return strings.Clone(s), nil }

func parseInt(s string) (any, error) { return strconv.ParseInt(s, 10, 64) }

func parseFloat(s string) (any, error) { return strconv.ParseFloat(s, 64) }

func parsePdays(s string) (any, error) {
	if s == "999" {
		return nil, nil
	}
	return parseInt(s)
}
