package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/writ-io/writ/lease"
)

// exitError ends the program with a code of its own and, if it has a cause, a message.
type exitError struct {
	code  int
	cause error
}

func (e *exitError) Error() string {
	if e.cause == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.cause.Error()
}

func (e *exitError) Unwrap() error { return e.cause }

// ownExitCode is an annotation of commands that pass on the exit code of another one, and so need a code for failures of
// their own.
const ownExitCode = "exit code 125"

// judge answers the exit code, and what is to be told, if anything.
func judge(cmd *cobra.Command, err error) (code int, tell error) {
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code, exit.cause
	}
	if _, own := cmd.Annotations[ownExitCode]; own && err != nil {
		return exitOwn, err
	}
	return lease.ExitCode(err), err
}

// failure is an error as data. Its fields are named as those of the API.
type failure struct {
	Reason     string         `json:"reason"`
	Message    string         `json:"message"`
	Field      string         `json:"field,omitempty"`
	Fix        string         `json:"fix,omitempty"`
	Resource   string         `json:"resource,omitempty"`
	Token      string         `json:"token,omitempty"`
	TokenText  string         `json:"tokenText,omitempty"`
	Holder     *failureHolder `json:"holder,omitempty"`
	RetryAfter string         `json:"retryAfter,omitempty"`
	ExitCode   int            `json:"exitCode"`
}

type failureHolder struct {
	Principal string `json:"principal,omitempty"`
	Instance  string `json:"instance,omitempty"`
	Region    string `json:"region,omitempty"`
}

// complain tells an error in one line.
func (a *app) complain(err error, code int, asJSON bool) {
	if !asJSON {
		_, _ = fmt.Fprintln(a.stderr, "writ:", oneLine(err.Error()))
		return
	}
	out := failure{Reason: string(lease.ReasonOf(err)), Message: err.Error(), ExitCode: code}
	if e := (*lease.Error)(nil); errors.As(err, &e) {
		out.Field, out.Fix, out.Resource = e.Field, e.Fix, string(e.Resource)
		if e.Token != 0 {
			out.Token, out.TokenText = e.Token.Decimal(), e.Token.String()
		}
		if h := e.Holder; h != (lease.Holder{}) {
			out.Holder = &failureHolder{Principal: string(h.Principal), Instance: h.Instance, Region: h.Region}
		}
		if e.RetryAfter > 0 {
			out.RetryAfter = fmt.Sprintf("%gs", e.RetryAfter.Seconds()) // as protobuf JSON has it
		}
		if out.Message == e.Error() {
			out.Message = e.Message // its other fields say the rest
		}
	}
	raw, _ := json.Marshal(map[string]failure{"error": out}) // strings and numbers: it cannot fail
	_, _ = fmt.Fprintln(a.stderr, string(raw))
}

// oneLine keeps a text from other machines from moving a terminal's cursor.
func oneLine(s string) string {
	s = strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// asksForJSON looks for -o json where the command line was not understood.
func asksForJSON(args []string) bool {
	for i, arg := range args {
		switch {
		case arg == "--":
			return false
		case slices.Contains([]string{"-ojson", "-o=json", "--output=json"}, arg):
			return true
		case (arg == "-o" || arg == "--output") && i+1 < len(args) && args[i+1] == outputJSON:
			return true
		}
	}
	return false
}
