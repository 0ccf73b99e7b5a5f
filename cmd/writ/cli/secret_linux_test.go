package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"testing"
)

const secretVariable = "WRIT_TEST_SECRET"

func init() {
	if os.Getenv(secretVariable) == "" {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	secret, err := (&app{}).askSecret(ctx, "Passphrase of k: ")
	fmt.Printf("got %d bytes, %v\n", len(secret), err)
	os.Exit(0)
}

func TestAskSecretOnATerminal(t *testing.T) {
	t.Parallel()
	d := sit(t, []string{secretVariable + "=1"}, `trap : INT; "$0"; read line; echo "shell read $line"; "$0"; stty -a`)
	d.expect(t, "Passphrase of k: ")
	d.hit(t, "correct horse\n")
	d.expect(t, "\r\ngot 13 bytes, <nil>") // and nothing that was typed stands before it
	d.hit(t, "aloud\n")
	d.expect(t, "aloud\r\nshell read aloud") // it is shown again
	d.expect(t, "Passphrase of k: ")
	d.hit(t, "half"+keyInterrupt)
	d.expect(t, "got 0 bytes, interrupted; nothing was signed")
	d.expect(t, " echo ")
}

func TestAskSecretWithoutATerminal(t *testing.T) {
	d := sit(t, []string{secretVariable + "=1"}, `setsid -w "$0" </dev/null`)
	d.expect(t, "got 0 bytes, there is no terminal to ask at")
}
