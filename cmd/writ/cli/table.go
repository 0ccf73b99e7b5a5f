package cli

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// style is how a cell looks where colours are shown.
type style string

const (
	plain style = ""
	good  style = "\x1b[32m"
	bad   style = "\x1b[31m"
	weak  style = "\x1b[33m"
	faint style = "\x1b[2m"

	styleEnd = "\x1b[0m"
)

// cell is one field of a table.
type cell struct {
	text  string
	style style
}

func text(s string) cell { return cell{text: s} }

// colours tells whether tables are coloured: on a terminal, unless somebody asked for none.
func (a *app) colours() bool {
	file, ok := a.stdout.(*os.File)
	return ok && !a.noColor && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(file)
}

// columns writes rows aligned below a heading. An empty cell is shown as "-".
func (a *app) columns(w io.Writer, heading []string, rows [][]cell) {
	all := [][]cell{make([]cell, len(heading))}
	for i, name := range heading {
		all[0][i] = text(name)
	}
	a.align(w, append(all, rows...))
}

// pair is a line of a form.
type pair struct {
	name  string
	value cell
}

// pairs writes names and values, one a line, and leaves out what has no value.
func (a *app) pairs(w io.Writer, lines ...pair) {
	var rows [][]cell
	for _, line := range lines {
		if line.value.text != "" {
			rows = append(rows, []cell{text(line.name), line.value})
		}
	}
	a.align(w, rows)
}

const columnGap = 2

func (a *app) align(w io.Writer, rows [][]cell) {
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 1)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	colours := a.colours()
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row {
			if c.text == "" {
				c.text = "-"
			}
			padding := widths[i] - utf8.RuneCountInString(c.text) + columnGap
			if colours && c.style != plain {
				c.text = string(c.style) + c.text + styleEnd
			}
			line.WriteString(c.text)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", padding))
			}
		}
		_, _ = io.WriteString(w, line.String()+"\n") // to memory
	}
}
