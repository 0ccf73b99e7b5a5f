package plan

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxBytes bounds the text of a plan.
const MaxBytes = 1 << 20

// SyntaxError says where a text is no plan, and what would do. It is the only kind of error that [Parse] returns.
type SyntaxError struct {
	File string
	// Line and Column count from 1; Column counts characters.
	Line, Column int
	Message, Fix string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s; %s", e.File, e.Line, e.Column, e.Message, e.Fix)
}

// position is a line and a column, which count from 1.
type position struct{ line, column int }

// token is a word of a line.
type token struct {
	text string
	position
}

// line is what a line says, without its comment.
type line struct {
	tokens  []token
	comment string
	// remark is set if there is a comment and nothing else.
	remark bool
	end    position // after the last token
}

// scan takes a text apart.
func scan(file string, text []byte) ([]line, *SyntaxError) {
	fail := func(at position, message, fix string) ([]line, *SyntaxError) {
		return nil, &SyntaxError{File: file, Line: at.line, Column: at.column, Message: message, Fix: fix}
	}
	if len(text) > MaxBytes {
		return fail(position{1, 1}, fmt.Sprintf("the file has %d bytes", len(text)), fmt.Sprintf("a plan has at most %d", MaxBytes))
	}
	var lines []line
	for i, raw := range strings.Split(string(text), "\n") {
		raw = strings.TrimSuffix(raw, "\r")
		column := 0
		for at, r := range raw {
			column++
			if r == utf8.RuneError && !strings.HasPrefix(raw[at:], string(utf8.RuneError)) || r != '\t' && unicode.IsControl(r) {
				return fail(position{i + 1, column}, "the file is not text", "name a file that starts with the line "+header)
			}
		}
		lines = append(lines, scanLine(i+1, raw))
	}
	return lines, nil
}

func scanLine(number int, raw string) line {
	l := line{end: position{number, 1}}
	column := 0
	inWord := false
	for at, r := range raw {
		column++
		switch {
		case r == ' ' || r == '\t':
			inWord = false
			continue
		case inWord:
			l.tokens[len(l.tokens)-1].text += string(r)
		case r == '#':
			l.comment = remark(raw[at+1:])
			l.remark = len(l.tokens) == 0
			return l
		default:
			l.tokens = append(l.tokens, token{string(r), position{number, column}})
			inWord = true
		}
		l.end = position{number, column + 1}
	}
	return l
}

// remark is the text of a comment as [Plan.About] has it.
func remark(s string) string {
	return strings.TrimRight(strings.TrimPrefix(strings.ReplaceAll(s, "\t", " "), " "), " ")
}
