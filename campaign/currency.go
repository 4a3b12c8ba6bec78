package campaign

import "strings"

// minorDigits lists the active currencies of ISO 4217 (list one, as of January 2026) by
// the digits of their minor unit. What has no minor unit there, such as gold, the
// special drawing right and the codes for tests, is no currency to plan in.
var minorDigits = func() map[string]int {
	digits := map[string]int{}
	for n, codes := range map[int]string{
		0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
		2: `AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD
			CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL
			GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP
			LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK
			NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS
			SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST
			XAD XCD XCG YER ZAR ZMW ZWG`,
		3: "BHD IQD JOD KWD LYD OMR TND",
		4: "CLF UYW",
	} {
		for _, code := range strings.Fields(codes) {
			digits[code] = n
		}
	}
	return digits
}()

// MinorDigits returns how many decimals an active ISO 4217 currency has, e.g. 2 for
// CNY, 0 for JPY and 3 for KWD, and whether there is such a currency.
func MinorDigits(currency string) (digits int, known bool) {
	digits, known = minorDigits[currency]
	return digits, known
}
