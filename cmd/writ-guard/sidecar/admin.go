package sidecar

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/writ-io/writ/fence"
)

// admin serves what operators and supervisors ask.
func (s *Sidecar) admin() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{Registry: s.registry}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Ready(); err != nil {
			answer(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "reason": err.Error()})
			return
		}
		answer(w, http.StatusOK, map[string]string{"status": "ready"})
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, s.describe()) })
	mux.HandleFunc("POST /breakglass", s.takeCertificate)
	return mux
}

func answer(w http.ResponseWriter, status int, body any) {
	text, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		status, text = http.StatusInternalServerError, []byte("{}")
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // whoever asked has gone
}

// description is what /status tells.
type description struct {
	Name    string   `json:"name"`
	Region  string   `json:"region,omitempty"`
	Form    string   `json:"form"`
	Version string   `json:"version"`
	Covers  []string `json:"covers"`
	Stamps  []string `json:"stamps,omitempty"`

	// BreakGlass is there while a certificate lets the guard go on without a quorum.
	BreakGlass string `json:"BREAK_GLASS,omitempty"`
	// Known is what the guard remembers of its quorum.
	Known    knownQuorum `json:"known"`
	Openings []opening   `json:"openings,omitempty"`

	Ready    bool   `json:"ready"`
	NotReady string `json:"not_ready,omitempty"`

	Quorum    string `json:"quorum,omitempty"`
	Endpoint  string `json:"endpoint,omitempty"`
	LinkError string `json:"link_error,omitempty"`
	Seeded    bool   `json:"seeded"`
	Enrolled  bool   `json:"enrolled"`
	Connected bool   `json:"connected"`
	// LeaseLeft is how long writes under rules that close go on without another contact, in seconds.
	LeaseLeft    float64 `json:"lease_left_seconds"`
	Slack        float64 `json:"slack_seconds"`
	RulesVersion uint64  `json:"rules_version"`
	Keys         int     `json:"keys"`

	Store        string `json:"store"`
	StoreVersion uint64 `json:"store_version"`
	StoreFailed  bool   `json:"store_failed"`
	Floors       int    `json:"floors"`
	// Tokens are the floors, of at most 1,000 resources.
	Tokens    []floor     `json:"tokens,omitempty"`
	Base      fence.Token `json:"base"`
	Witnessed fence.Token `json:"witnessed"`

	Admitted uint64  `json:"admitted"`
	Refused  uint64  `json:"refused"`
	InFlight int     `json:"in_flight"`
	Parked   int     `json:"parked"`
	Alarms   []alarm `json:"alarms,omitempty"`
}

// alarm is a token from the quorum that was below the guard's floor.
type alarm struct {
	Resource string      `json:"resource"`
	Token    fence.Token `json:"token"`
	Floor    fence.Token `json:"floor"`
}

func (s *Sidecar) describe() description {
	c, st := s.config, s.status()
	d := description{
		Name: c.Name, Region: c.Region, Form: c.form(), Version: s.version, Covers: c.covers(), Stamps: c.stamps(),
		Quorum: st.Issuer, Endpoint: st.Endpoint,
		Seeded: st.Seeded, Enrolled: st.Enrolled, Connected: st.Connected,
		LeaseLeft: seconds(st.LeaseLeft), Slack: seconds(c.Slack), RulesVersion: st.RulesVersion, Keys: st.Keys,
		Store: st.Store, StoreVersion: st.Version, StoreFailed: st.StoreFailed, Floors: st.Floors, Base: st.Base, Witnessed: st.Witnessed,
		Admitted: st.Admitted, Refused: st.Refused, InFlight: st.InFlight, Parked: st.Parked,
	}
	d.Known = knownQuorum{
		Cluster: st.Quorum.Cluster, Incarnation: st.Quorum.Incarnation, Epoch: uint32(st.Quorum.Epoch), ApproversVersion: st.Quorum.ApproversVersion,
	}
	d.Openings = openings(st.Openings)
	if n := inForce(st); n > 0 {
		d.BreakGlass = fmt.Sprintf("%d resources are admitted without a quorum, by a certificate that people signed", n)
	}
	for _, f := range s.guard.Floors(maxShownFloors) {
		d.Tokens = append(d.Tokens, floor{f.Resource, f.Token})
	}
	if err := s.Ready(); err == nil {
		d.Ready = true
	} else {
		d.NotReady = err.Error()
	}
	if st.LinkError != nil {
		d.LinkError = st.LinkError.Error()
	}
	for _, a := range st.Alarms {
		d.Alarms = append(d.Alarms, alarm{Resource: a.GetResource(), Token: fence.Token(a.GetToken()), Floor: fence.Token(a.GetFloor())})
	}
	return d
}

// maxShownFloors bounds the floors in one answer.
const maxShownFloors = 1000

func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
