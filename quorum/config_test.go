package quorum

import (
	"errors"
	"strings"
	"testing"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

func TestConfigNamesTheField(t *testing.T) {
	usable := func() Config {
		return Config{
			Name: "n1", Region: "eu", Cluster: "c", Witness: &writv1.WitnessRecord{},
			SaveWitness: func(*writv1.WitnessRecord) error { return nil },
		}
	}
	for field, edit := range map[string]func(*Config){
		"":            func(*Config) {},
		"name":        func(c *Config) { c.Name = "" },
		"region":      func(c *Config) { c.Region = strings.Repeat("x", 65) },
		"cluster":     func(c *Config) { c.Cluster = "" },
		"token_block": func(c *Config) { c.TokenBlock = minTokenBlock - 1 },
		"witness":     func(c *Config) { c.SaveWitness = nil },
	} {
		c := usable()
		edit(&c)
		check(t, c, field)
	}
	for _, block := range []uint64{1, maxTokenBlock + 1, 1 << 63} {
		c := usable()
		c.TokenBlock = block
		check(t, c, "token_block")
	}
	for _, block := range []uint64{0, minTokenBlock, maxTokenBlock} {
		c := usable()
		c.TokenBlock = block
		check(t, c, "")
	}
}

func check(t *testing.T, c Config, field string) {
	t.Helper()
	err := c.Validate()
	var e *lease.Error
	switch {
	case field == "" && err != nil:
		t.Errorf("refused: %v", err)
	case field != "" && (!errors.As(err, &e) || e.Reason != lease.ReasonInvalid || e.Field != field || e.Fix == ""):
		t.Errorf("got %v, want INVALID of %s with a fix", err, field)
	}
}
