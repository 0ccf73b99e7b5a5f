package proxy_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/proxy"
	"github.com/writ-io/writ/fence/guard/route"
)

// A storage that knows nothing of tokens gets only the writes of the newest holder.
func Example() {
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "stored %s for %s\n", body, r.URL.Path)
	}))
	defer storage.Close()

	p, err := proxy.New(proxy.Config{
		Routes:    []route.Route{{Path: "/tenants", Resource: "tenants/{1}", Trusted: true, Upstream: "storage"}},
		Upstreams: []proxy.Upstream{{Name: "storage", URL: storage.URL}},
	}, newLightKeeper(), nil) // a *guard.Guard outside of examples
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close(context.Background())
	front := httptest.NewServer(p)
	defer front.Close()

	for _, token := range []string{"1.7", "1.5"} {
		r, err := http.NewRequest("PUT", front.URL+"/tenants/acme/orders", strings.NewReader("17"))
		if err != nil {
			log.Fatal(err)
		}
		r.Header.Set(fence.HeaderToken, token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			log.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Print(resp.StatusCode, " ", string(body))
	}
	// Output:
	// 200 stored 17 for /tenants/acme/orders
	// 412 {"type":"https://writ.dev/problems/stale-token","title":"The token is stale","status":412,"detail":"fence: stale token: 1.5 for resource \"tenants/acme\" is below the floor 1.7: stop writing and acquire again","reason":"STALE_TOKEN","resource":"tenants/acme","token":"281474976710661","floor":"281474976710663"}
}
