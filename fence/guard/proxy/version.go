package proxy

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
)

// refuseVersion answers what is not HTTP/1. The beginning of HTTP/2 without negotiation, which net/http hands on as a request
// of its own, is answered in HTTP/2, because its sender understands nothing else.
func (p *Proxy) refuseVersion(w http.ResponseWriter, r *http.Request) {
	detail := "the guard cannot see the end of requests of " + r.Proto + ": use HTTP/1.1"
	if r.Method != "PRI" || r.ProtoMajor != 2 {
		p.refuse(w, r, "", problem(ReasonVersion, http.StatusHTTPVersionNotSupported, "The version of HTTP is not supported", detail))
		return
	}
	p.metrics.refused("", strings.ToLower(ReasonVersion))
	nc, rest, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // not supported by all servers
	}
	defer nc.Close()
	_ = nc.SetDeadline(hangUpDeadline())
	if _, err := nc.Write(goAway(detail)); err != nil {
		return
	}
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	// Closing with something unread would make the other side drop what it was told.
	_, _ = io.CopyN(io.Discard, rest, maxHangUpBytes)
}

// maxHangUpBytes is how much is read of what nobody wants.
const maxHangUpBytes = 256 << 10

// goAway is what a server says in HTTP/2 to make the client use HTTP/1.1 (RFC 9113, sections 6.5, 6.8 and 7): its settings,
// which have to come first, and GOAWAY with the error HTTP_1_1_REQUIRED.
func goAway(detail string) []byte {
	const settings, away, http11Required = 4, 7, 13
	frame := func(kind byte, payload []byte) []byte {
		header := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
		return append(append(header, 0, 0, 0, 0, 0), payload...) // no flags, stream 0
	}
	payload := binary.BigEndian.AppendUint32(make([]byte, 4), http11Required) // no stream was processed
	return append(frame(settings, nil), frame(away, append(payload, detail...))...)
}
