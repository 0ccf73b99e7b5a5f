package cli

import (
	"fmt"
	"testing"
)

// At a terminal the cluster's name is typed; anything else signs nothing.
func TestBreakglassNameIsTyped(t *testing.T) {
	path, _ := certFile(t)
	key, _ := sshKey(t, "ada")
	sign := fmt.Sprintf(`"$0" breakglass sign '%s' --key '%s'; echo "code $?"`, path, key)
	d := sit(t, nil, sign+"; "+sign)
	d.expect(t, "off for sure")
	d.expect(t, "Type prod to go on: ")
	d.hit(t, "orders\n")
	d.expect(t, "answer is not the name; nothing was changed")
	d.expect(t, "code 1")
	if n := signatures(t, path); n != 0 {
		t.Errorf("%d signatures", n)
	}
	d.expect(t, "Type prod to go on: ")
	d.hit(t, "prod\n")
	d.expect(t, "code 0")
	if n := signatures(t, path); n != 1 {
		t.Errorf("%d signatures", n)
	}
}
