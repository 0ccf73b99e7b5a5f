package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// CommandProbe is a program that looks. It prints JSON to standard output and exits with 0; another exit code means that the
// data does not work, with what it said on standard error. Fields that it leaves out are not known:
//
//	{"health": "ok", "detail": "…", "headroom": 700, "lag": "1.5s", "writable": true,
//	 "position": {"log": "…", "bytes": "…", "text": "…"}, "upstream": {…}}
type CommandProbe struct {
	Args []string
	Env  []string
	Dir  string
}

var _ Probe = (*CommandProbe)(nil)

// Look implements [Probe].
func (p *CommandProbe) Look(ctx context.Context) (Sight, error) {
	stdout, stderr := NewTail(maxResultBytes), NewTail(maxOutputBytes)
	err := Program{Args: p.Args, Dir: p.Dir, Env: p.Env, Stdout: stdout, Stderr: stderr, Mark: rand.Text()}.Run(ctx)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return Sight{}, ctx.Err()
	case errors.As(err, &exit):
		return Sight{}, &Failure{Detail: strings.TrimSpace(fmt.Sprintf("%v: %s", err, stderr))}
	case err != nil:
		return Sight{}, err
	}
	sight, err := parseSight([]byte(stdout.String()))
	if err != nil {
		return Sight{}, fmt.Errorf("the output of %s: %w", p.Args[0], err)
	}
	return sight, nil
}

// RequestProbe looks by a GET: 2xx means that the data works, and a body that is a JSON object says what a [CommandProbe]
// prints. Another status, and a connection that is refused, mean that it does not.
type RequestProbe struct {
	URL    string
	Header map[string]string
	Client *http.Client
}

var _ Probe = (*RequestProbe)(nil)

// Look implements [Probe].
func (p *RequestProbe) Look(ctx context.Context) (Sight, error) {
	status, answer, err := Send(ctx, p.Client, http.MethodGet, p.URL, p.Header, nil)
	if err != nil {
		var refused *net.OpError
		if errors.As(err, &refused) && ctx.Err() == nil {
			return Sight{}, &Failure{Detail: err.Error()}
		}
		return Sight{}, err
	}
	if status/100 != 2 {
		return Sight{}, &Failure{Detail: fmt.Sprintf("%s answered %d: %s", p.URL, status, clip(string(answer), maxEntryBytes))}
	}
	if trimmed := bytes.TrimSpace(answer); len(trimmed) > 0 && trimmed[0] == '{' {
		return parseSight(trimmed)
	}
	return Sight{}, nil
}

// parseSight reads what a probe says in JSON.
func parseSight(data []byte) (s Sight, err error) {
	var said struct {
		Health   string          `json:"health"`
		Detail   string          `json:"detail"`
		Headroom *uint32         `json:"headroom"`
		Lag      *string         `json:"lag"`
		Writable *bool           `json:"writable"`
		Position json.RawMessage `json:"position"`
		Upstream json.RawMessage `json:"upstream"`
	}
	if err := json.Unmarshal(data, &said); err != nil {
		return s, fmt.Errorf("no JSON object as is asked for: %w", err)
	}
	s = Sight{Detail: said.Detail, Headroom: said.Headroom, Writable: said.Writable}
	switch said.Health {
	case "", "ok":
		s.Health = writv1.Health_HEALTH_OK
	case "degraded":
		s.Health = writv1.Health_HEALTH_DEGRADED
	case "failed":
		return Sight{}, &Failure{Detail: said.Detail}
	default:
		return Sight{}, fmt.Errorf("health is %.80q: say ok, degraded or failed", said.Health)
	}
	if said.Headroom != nil && *said.Headroom > 1000 {
		return Sight{}, fmt.Errorf("headroom is %d: it is in thousandths, 0 to 1000", *said.Headroom)
	}
	if said.Lag != nil {
		lag, err := time.ParseDuration(*said.Lag)
		if err != nil || lag < 0 {
			return Sight{}, fmt.Errorf("lag is %.80q: write a duration such as 1.5s", *said.Lag)
		}
		s.Lag = &lag
	}
	for _, f := range []struct {
		name string
		data json.RawMessage
		to   **writv1.Position
	}{{"position", said.Position, &s.Position}, {"upstream", said.Upstream, &s.Upstream}} {
		if len(f.data) == 0 || string(f.data) == "null" {
			continue
		}
		*f.to = &writv1.Position{}
		if err := protojson.Unmarshal(f.data, *f.to); err != nil {
			return Sight{}, fmt.Errorf("%s: %w: write log, bytes and text", f.name, err)
		}
	}
	return s, nil
}
