package demo

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/fence/guard/proxy"
	"github.com/writ-io/writ/fence/guard/route"
	"github.com/writ-io/writ/lease"
)

const (
	guardName = "ledger-guard"
	// guardSlack is W. It bounds a pause of this process and what the store does with one line.
	guardSlack = time.Second
	// farewell bounds how long the guard takes leave of the quorum.
	farewell = 3 * time.Second
)

// front is the guard before the store, in this process: what writ-guard is in one of its own.
type front struct {
	guard    *guard.Guard
	proxy    *proxy.Proxy
	server   *http.Server
	listener net.Listener
	serving  sync.WaitGroup
}

// newFront starts a guard of name that keeps its floors in dir, before the store at url. Its endpoints are those of identity.
func newFront(dir, url string, identity lease.Config) (f *front, err error) {
	f = &front{}
	f.guard, err = guard.New(guard.Config{
		Name: guardName, Region: identity.Region, Form: "proxy", Covers: []string{resource}, Store: filepath.Join(dir, "floors"),
		Endpoints: identity.Endpoints, Insecure: identity.Insecure, Slack: guardSlack,
		CAFile: identity.CAFile, CertFile: identity.CertFile, KeyFile: identity.KeyFile,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.close() // why it was not started is told
		}
	}()
	f.proxy, err = proxy.New(proxy.Config{
		Routes:    []route.Route{{Name: "ledger", Path: "/ledger", Resource: resource, Upstream: "file"}},
		Upstreams: []proxy.Upstream{{Name: "file", URL: url}},
	}, f.guard, nil)
	if err != nil {
		return nil, err
	}
	if f.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	f.server = f.proxy.Server("")
	f.serving.Go(func() { _ = f.server.Serve(f.listener) }) // ends with close
	return f, nil
}

func (f *front) url() string { return "http://" + f.listener.Addr().String() + "/ledger" }

// node is the endpoint of the node that the guard speaks with; empty: none.
func (f *front) node() string { return f.guard.Status().Endpoint }

// why says why the guard cannot decide.
func (f *front) why() error {
	s := f.guard.Status()
	if s.Ready() {
		return nil
	}
	return errors.Join(errors.New("the guard has not been told the floors"), s.LinkError)
}

// close ends what there is.
func (f *front) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	var all error
	if f.server != nil {
		all = errors.Join(all, f.server.Close())
		f.serving.Wait()
	}
	if f.proxy != nil {
		all = errors.Join(all, f.proxy.Close(ctx))
	}
	return errors.Join(all, f.guard.Close(ctx))
}

// startingAt moves the endpoint of one region to the front; endpoints are in the order of regions.
func startingAt(identity lease.Config, regions []string, region string) lease.Config {
	if i := slices.Index(regions, region); i >= 0 && len(regions) == len(identity.Endpoints) {
		identity.Endpoints = append([]string{identity.Endpoints[i]}, slices.Delete(slices.Clone(identity.Endpoints), i, i+1)...)
	}
	return identity
}
