package verdict

import "fmt"

// Verdict is one of three. The zero value is Unknown.
type Verdict uint8

// The verdicts.
const (
	// Unknown: too little happened, or it could not be decided, or the harness itself failed.
	Unknown Verdict = iota
	// Valid: no promise was broken, and enough happened for that to mean something.
	Valid
	// Invalid: a promise was broken.
	Invalid
)

var names = [...]string{Unknown: "unknown", Valid: "valid", Invalid: "invalid"}

func (v Verdict) String() string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("verdict %d", uint8(v))
}

// Fold returns the verdict on all together.
func Fold(all ...Verdict) Verdict {
	folded := Unknown
	for i, v := range all {
		switch {
		case v == Invalid:
			return Invalid
		case i == 0:
			folded = v
		case v != Valid:
			folded = Unknown
		}
	}
	return folded
}

// Judgement is what one checker found.
type Judgement struct {
	// Workload is what was judged; "" is what belongs to no workload, such as logs.
	Workload string
	// Check is the checker.
	Check   string
	Verdict Verdict
	// Rounds are those that it is about; none: the whole run.
	Rounds []int
	// Reason is a sentence.
	Reason string
	// Evidence are lines that show it.
	Evidence []string
}

// Of folds the verdicts of judgements.
func Of(judgements []Judgement) Verdict {
	all := make([]Verdict, len(judgements))
	for i, j := range judgements {
		all[i] = j.Verdict
	}
	return Fold(all...)
}
