package dataset

import "math/bits"

// draw is a SplitMix64 sequence (Steele, Lea, Flood 2014) that starts from a
// seed and a row number alone, so that any row can be made without the rows
// before it. It and everything built on it use integers only: a row is the
// same on every processor.
type draw uint64

const (
	golden = 0x9e3779b97f4a7c15
	ppm    = 1_000_000     // shares are given in parts per million
	ppb    = 1_000_000_000 // … and rare ones in parts per billion
)

func newDraw(seed uint64, row int) draw {
	return draw(mix(mix(seed+golden) ^ uint64(row)*golden))
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below returns a number 0 <= x < n. Its bias is below n/2^64.
func (d *draw) below(n int64) int64 {
	*d += golden
	hi, _ := bits.Mul64(mix(uint64(*d)), uint64(n))
	return int64(hi)
}

func (d *draw) chance(partsPerMillion int64) bool { return d.below(ppm) < partsPerMillion }

// rank returns a uniform rank 0 <= u < ppm.
func (d *draw) rank() int64 { return d.below(ppm) }

// near returns a rank that is correlated with u and is itself uniform: u is
// moved by a uniform amount of at most half the range to either side and
// reflected at the ends, which leaves the distribution of a uniform u
// unchanged. So attributes go together and keep their marginals.
func (d *draw) near(u int64) int64 {
	u += d.below(ppm) - ppm/2
	if u < 0 {
		return -u - 1
	}
	if u >= ppm {
		return 2*ppm - 1 - u
	}
	return u
}

// curve is a quantile function: the value at cumulated shares, linear between
// them. The first knot is at 0, the last at ppm, whose value is never reached.
type curve []knot

type knot struct{ share, value int64 }

// at returns the value at rank u, rounded down.
func (c curve) at(u int64) int64 {
	i := 1
	for c[i].share <= u {
		i++
	}
	a, b := c[i-1], c[i]
	return a.value + (b.value-a.value)*(u-a.share)/(b.share-a.share)
}

// share returns the share, in parts per million, of values below v, which must
// be the value of a knot.
func (c curve) share(v int64) int64 {
	for _, k := range c {
		if k.value == v {
			return k.share
		}
	}
	panic("dataset: no knot at this value")
}
