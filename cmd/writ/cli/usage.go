package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/writ-io/writ/lease"
)

// How the command line may be misunderstood. Every such error is INVALID, in one line, and says what would do.

// group makes a command that only holds others: without arguments it explains itself.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		fix := fmt.Sprintf("see %s --help", cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			fix = fmt.Sprintf("did you mean %s %s?", cmd.CommandPath(), near[0])
		}
		return lease.Invalid("command", fmt.Sprintf("%q is unknown", cmd.CommandPath()+" "+args[0]), fix)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

// explain makes what cobra brings along answer as our own commands do, where it would print help and exit with 0. Outputs
// are to be set before.
func explain(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "completion":
			group(cmd)
			for _, shell := range cmd.Commands() {
				shell.Args = arguments()
			}
		case "help":
			cmd.Args = func(_ *cobra.Command, args []string) error {
				topic, rest, err := root.Find(args)
				if err != nil || !topic.HasSubCommands() {
					return err
				}
				return topic.Args(topic, rest)
			}
		}
	}
}

// arguments checks that as many arguments are given as there are names; those in brackets may be left out.
func arguments(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		fix := "write: " + cmd.CommandPath()
		for _, name := range names {
			fix += " " + name
		}
		for i, name := range names {
			if i >= len(args) && !strings.HasPrefix(name, "[") {
				return lease.Invalid(name, "is missing", fix)
			}
		}
		if len(args) > len(names) {
			return lease.Invalid("arguments", fmt.Sprintf("are too many: %q", args[len(names)]), fix)
		}
		return nil
	}
}

// flagError explains a flag that was not understood.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var missing *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		fix := fmt.Sprintf("see %s --help", cmd.CommandPath())
		if near := nearestFlag(cmd, name); near != "" {
			fix = fmt.Sprintf("did you mean --%s?", near)
		}
		if unknown.GetSpecifiedShortnames() != "" {
			return lease.Invalid("-"+name, "is no flag of "+cmd.CommandPath(), fix)
		}
		return lease.Invalid("--"+name, "is no flag of "+cmd.CommandPath(), fix)
	case errors.As(err, &missing):
		return lease.Invalid("--"+missing.GetFlag().Name, "has no value", flagFix(missing.GetFlag()))
	case errors.As(err, &invalid):
		return lease.Invalid("--"+invalid.GetFlag().Name, fmt.Sprintf("is %q", invalid.GetValue()), flagFix(invalid.GetFlag()))
	}
	return lease.Invalid("flags", "cannot be read: "+err.Error(), fmt.Sprintf("see %s --help", cmd.CommandPath()))
}

// flagFix says what a flag takes.
func flagFix(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "duration":
		return "use a duration, such as 10s, 1m30s or 250ms"
	case "bool":
		return "use true or false"
	case "int", "int32", "uint16":
		return "use a whole number"
	case "uint64":
		return "use a whole number from 0 to 18446744073709551615"
	case "float64":
		return "use a number, such as 0.5"
	}
	return "give it a value"
}

// nearestFlag returns the flag that somebody who wrote name may have meant, or "".
func nearestFlag(cmd *cobra.Command, name string) string {
	best, nearest := "", 3 // two slips of the finger are understood
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if d := distance(name, f.Name); d < nearest && d < len(f.Name) && !f.Hidden {
			best, nearest = f.Name, d
		}
	})
	return best
}

// distance is the number of letters to insert, delete or change to make one text of the other.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
