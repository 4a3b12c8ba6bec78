package dataset

// The columns of a generated customer, in the order of operatorAttributes.
const (
	colAge = iota
	colSegment
	colArea
	colLocal
	colHasMobile
	colHasBroadband
	colTenure
	colJoinedAt
	colARPU
	colVIP
	colPlan
	colContractLeft
	colMinutesIn
	colMinutesOut
	colMinutesAway
	colDataMB
	colDataMonths
	colSMSCount
	colMMSCount
	colDeviceAge
	colBroadbandSpeed
	colMMSPack
	colRingback
	colPromotedPhone
	colComplaints
	colConsultations
	colPaidOnTime
	colOptOutSMS
	colOptOutCall
)

// mobileColumns do not apply to customers without mobile.
var mobileColumns = [...]int{
	colPlan, colContractLeft, colMinutesIn, colMinutesOut, colMinutesAway, colDataMB, colDataMonths, colSMSCount, colMMSCount, colDeviceAge,
}

const (
	noMobile   = "; empty without mobile"
	noMobileZh = ";无手机业务为空"
)

// Amounts of use are of the last full month.
var operatorAttributes = []Attribute{
	colAge:            {Name: "age", Type: Int, Unit: "years", Meaning: "Age", MeaningZh: "年龄"},
	colSegment:        {Name: "segment", Type: Text, Meaning: "Customer group", MeaningZh: "客户群"},
	colArea:           {Name: "area", Type: Text, Meaning: "Kind of place: urban, suburban or rural", MeaningZh: "区域类型(urban 城区/suburban 城郊/rural 农村)"},
	colLocal:          {Name: "local_resident", Type: Bool, Meaning: "Resident of the city by registration", MeaningZh: "是否本地户籍"},
	colHasMobile:      {Name: "has_mobile", Type: Bool, Meaning: "Has a mobile subscription", MeaningZh: "是否有手机业务"},
	colHasBroadband:   {Name: "has_broadband", Type: Bool, Meaning: "Has a broadband subscription", MeaningZh: "是否有宽带业务"},
	colTenure:         {Name: "tenure_months", Type: Int, Unit: "months", Meaning: "Time since the first subscription", MeaningZh: "在网时长"},
	colJoinedAt:       {Name: "joined_at", Type: Timestamp, Meaning: "First day of the month of the first subscription", MeaningZh: "入网月份(当月首日)"},
	colARPU:           {Name: "arpu", Type: Int, Unit: "fen a month", Meaning: "Average bill of a month, in minor units", MeaningZh: "月均账单金额(分)"},
	colVIP:            {Name: "vip", Type: Bool, Meaning: "Is looked after by a VIP manager", MeaningZh: "是否由大客户经理维系"},
	colPlan:           {Name: "price_plan", Type: Text, Meaning: "Mobile price plan: prepaid, light, standard or premium" + noMobile, MeaningZh: "手机资费套餐档位" + noMobileZh},
	colContractLeft:   {Name: "contract_months_left", Type: Int, Unit: "months", Meaning: "Months left of a mobile contract; empty without one", MeaningZh: "合约剩余月数;无合约为空"},
	colMinutesIn:      {Name: "call_minutes_in", Type: Int, Unit: "minutes", Meaning: "Minutes of calls received" + noMobile, MeaningZh: "被叫通话时长" + noMobileZh},
	colMinutesOut:     {Name: "call_minutes_out", Type: Int, Unit: "minutes", Meaning: "Minutes of calls made" + noMobile, MeaningZh: "主叫通话时长" + noMobileZh},
	colMinutesAway:    {Name: "interprovince_minutes_out", Type: Int, Unit: "minutes", Meaning: "Minutes of calls made to other provinces" + noMobile, MeaningZh: "省际主叫通话时长" + noMobileZh},
	colDataMB:         {Name: "data_mb", Type: Int, Unit: "MB", Meaning: "Mobile data used" + noMobile, MeaningZh: "手机上网流量" + noMobileZh},
	colDataMonths:     {Name: "data_active_months", Type: Int, Unit: "months", Meaning: "Months with mobile data use among the last six" + noMobile, MeaningZh: "近六个月内使用手机上网的月数" + noMobileZh},
	colSMSCount:       {Name: "sms_count", Type: Int, Unit: "messages", Meaning: "Text messages sent" + noMobile, MeaningZh: "短信发送条数" + noMobileZh},
	colMMSCount:       {Name: "mms_count", Type: Int, Unit: "messages", Meaning: "Multimedia messages sent" + noMobile, MeaningZh: "彩信发送条数" + noMobileZh},
	colDeviceAge:      {Name: "device_age_months", Type: Int, Unit: "months", Meaning: "Time since the present phone was first seen" + noMobile, MeaningZh: "当前终端使用月数" + noMobileZh},
	colBroadbandSpeed: {Name: "broadband_mbps", Type: Int, Unit: "Mbit/s", Meaning: "Speed of the broadband line; empty without broadband", MeaningZh: "宽带速率;无宽带为空"},
	colMMSPack:        {Name: "has_mms_pack", Type: Bool, Meaning: "Has a multimedia message pack", MeaningZh: "是否订购彩信包"},
	colRingback:       {Name: "has_ringback_tone", Type: Bool, Meaning: "Has a ring-back tone", MeaningZh: "是否订购彩铃"},
	colPromotedPhone:  {Name: "has_promoted_phone", Type: Bool, Meaning: "Has already taken the promoted contract phone", MeaningZh: "是否已办理主推合约机"},
	colComplaints:     {Name: "complaints_12m", Type: Int, Unit: "complaints", Meaning: "Complaints in the last twelve months", MeaningZh: "近十二个月投诉次数"},
	colConsultations:  {Name: "consultations_12m", Type: Int, Unit: "contacts", Meaning: "Consultations in the last twelve months", MeaningZh: "近十二个月咨询次数"},
	colPaidOnTime:     {Name: "paid_on_time_share", Type: Float, Unit: "0 to 1", Meaning: "Share of the last twelve bills paid on time", MeaningZh: "近十二期账单按时缴费占比"},
	colOptOutSMS:      {Name: "opt_out_sms", Type: Bool, Meaning: "Has refused marketing by SMS", MeaningZh: "是否拒收营销短信"},
	colOptOutCall:     {Name: "opt_out_call", Type: Bool, Meaning: "Has refused marketing calls", MeaningZh: "是否拒接营销外呼"},
}
