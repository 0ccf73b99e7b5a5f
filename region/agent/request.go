package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// Request is a hook that is asked for over HTTP: a POST of the [Variables] as a JSON object, with names in lower case and
// without the prefix. 2xx means done, and the body of the answer may be what a [Command] writes to WRIT_RESULT; whatever
// else it is, is output.
type Request struct {
	URL string
	// Header is added to each request.
	Header map[string]string
	// Again says that asking once more does no harm.
	Again bool
	// Client to ask with; nil: [http.DefaultClient], and redirects are not followed either way.
	Client *http.Client
}

var _ Hook = (*Request)(nil)

// Idempotent implements [Hook].
func (r *Request) Idempotent() bool { return r.Again }

// Run implements [Hook].
func (r *Request) Run(ctx context.Context, task *writv1.Task) (Outcome, error) {
	body := make(map[string]string)
	for name, value := range Variables(task) {
		body[strings.ToLower(strings.TrimPrefix(name, "WRIT_"))] = value
	}
	data, err := json.Marshal(body)
	if err != nil {
		return Outcome{}, err
	}
	status, answer, err := Send(ctx, r.Client, http.MethodPost, r.URL, traced(r.Header, task), data)
	out := Outcome{Output: clip(string(answer), maxOutputBytes)}
	if err != nil {
		return out, err
	}
	if status/100 != 2 {
		return out, fmt.Errorf("%s answered %d", r.URL, status)
	}
	if trimmed := bytes.TrimSpace(answer); len(trimmed) > 0 && trimmed[0] == '{' {
		said := out.Output
		if err := out.parseResult(trimmed); err == nil {
			out.Output = said
		}
	}
	return out, nil
}

// traced adds the trace context of a task to headers.
func traced(header map[string]string, task *writv1.Task) map[string]string {
	if task.GetTraceparent() == "" {
		return header
	}
	all := map[string]string{"traceparent": task.GetTraceparent()}
	maps.Copy(all, header)
	return all
}

// Send makes one HTTP request with a JSON body and answers status and body, of which it reads up to 64 KiB. It follows no
// redirect: what is to be done elsewhere was not done.
func Send(ctx context.Context, client *http.Client, method, url string, header map[string]string, body []byte) (int, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if len(body) > 0 {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, name := range slices.Sorted(maps.Keys(header)) {
		request.Header.Set(name, header[name])
	}
	direct := http.Client{}
	if client != nil {
		direct = *client
	}
	direct.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := direct.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }() // it was read, or does not matter
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxResultBytes))
	return response.StatusCode, answer, err
}
