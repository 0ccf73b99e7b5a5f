package proxy

import (
	"fmt"
	"io"
	"net/http"
)

// upload is the body of the request.
type upload struct {
	io.ReadCloser
	e *exchange
	// left of the limit; negative: none.
	left int64
	// Trailers of the request arrive with its end; those that were announced are copied.
	from, to http.Header
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	if u.left >= 0 {
		if u.left -= int64(n); u.left < 0 {
			return 0, fmt.Errorf("%w: limit reached", errTooLarge)
		}
	}
	if err == io.EOF {
		copyTrailer(u.to, u.from)
		u.e.uploaded.Store(true)
	}
	return n, err
}

// copyTrailer copies the values of the trailers that were announced.
func copyTrailer(to, from http.Header) {
	for name := range to {
		to[name] = from[name]
	}
}

// download is the body of the response.
type download struct {
	io.ReadCloser
	e *exchange
}

func (d *download) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if err == io.EOF {
		d.e.complete()
	}
	return n, err
}

// Close reads what is left when the caller did not take it, because only then is it known that the storage is done. The
// watcher bounds it.
func (d *download) Close() error {
	if !d.e.leave() {
		buffer := buffers.Get()
		defer buffers.Put(buffer)
		for err := error(nil); err == nil; {
			_, err = d.Read(buffer)
		}
		d.e.breakOff() // unless it is complete
	}
	return d.ReadCloser.Close()
}
