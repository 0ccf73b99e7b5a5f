package demo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
)

// result is what came of a step.
type result struct {
	step, expected, seen string
	ok                   bool
}

// writeTable shows all results. Colours go to terminals alone, and not where NO_COLOR asks for none.
func writeTable(w io.Writer, results []result) error {
	rows := [][]string{{"", "step", "expected", "seen", "ok"}}
	for i, r := range results {
		ok := "yes"
		if !r.ok {
			ok = "NO"
		}
		rows = append(rows, []string{fmt.Sprint(i + 1), r.step, r.expected, r.seen, ok})
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var all error
	colours := hasColours(w)
	for n, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			if i == len(row)-1 && n > 0 && colours {
				cell = coloured(cell, results[n-1].ok)
			}
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(row[i])+2))
			}
		}
		_, err := fmt.Fprintln(w, line.String())
		all = errors.Join(all, err)
	}
	return all
}

func hasColours(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isatty.IsTerminal(file.Fd())
}

func coloured(text string, good bool) string {
	if good {
		return "\x1b[32m" + text + "\x1b[0m"
	}
	return "\x1b[31m" + text + "\x1b[0m"
}
