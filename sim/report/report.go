package report

import (
	"bytes"
	_ "embed" // the page
	"encoding/json"
	"html"
	"io"
	"strings"

	"github.com/writ-io/writ/sim/trace"
)

var (
	//go:embed page.html
	page string
	//go:embed page.css
	style string
	//go:embed view.js
	viewScript string
	//go:embed chart.js
	chartScript string
	//go:embed events.js
	eventsScript string
	//go:embed page.js
	pageScript string
)

// HTML writes the page.
func HTML(w io.Writer, t *trace.Trace) error {
	// Marshalled JSON holds no <, and so nothing in it ends the element that it is in.
	var data bytes.Buffer
	if err := json.NewEncoder(&data).Encode(newView(t)); err != nil {
		return err
	}
	_, err := strings.NewReplacer(
		"{{title}}", html.EscapeString(title(t)),
		"{{style}}", style,
		"{{script}}", viewScript+chartScript+eventsScript+pageScript,
		"{{data}}", strings.TrimSpace(data.String()),
	).WriteString(w, page)
	return err
}

func title(t *trace.Trace) string {
	verdict := "clean"
	if len(t.Violations) > 0 {
		verdict = "broken: " + strings.Join(broken(t), ", ")
	}
	return t.Title + " – " + verdict
}
