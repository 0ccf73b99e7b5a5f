package region

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the expected output of scenarios and documents anew")

// TestPromotionTableIsCurrent holds docs/PROMOTION.md against the table that the code checks every transition against.
func TestPromotionTableIsCurrent(t *testing.T) {
	const file, begin, end = "../docs/PROMOTION.md", "<!-- transitions: begin -->\n", "<!-- transitions: end -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", file)
	}
	want := before + begin + TransitionsTable() + end + after
	switch {
	case want == string(text):
	case *rewrite:
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("the table of %s differs; run the test with -rewrite and review the diff", file)
	}
}
