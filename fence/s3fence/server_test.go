package s3fence_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/writ-io/writ/fence/s3fence"
	"github.com/writ-io/writ/fence/s3fence/awss3"
)

const serverSource = "../../.ci/tools/s3server"

// workplace is where the server's program and buckets lie while the tests run.
var workplace string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "s3fence")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	workplace = dir
	code := m.Run()
	stopShared()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// gateway is a versitygw in a process of its own.
type gateway struct {
	dir    string // holds the buckets
	client *s3.Client
	stop   func()
}

// program builds the server once. go build keeps what it compiles, so that only the first time takes long.
var program = sync.OnceValues(func() (string, error) {
	// Reading them makes them inputs of the test, as the cache of test results sees it.
	for _, name := range []string{"main.go", "go.mod", "go.sum"} {
		if _, err := os.ReadFile(filepath.Join(serverSource, name)); err != nil {
			return "", err
		}
	}
	path := filepath.Join(workplace, "s3server")
	build := exec.Command("go", "build", "-C", serverSource, "-buildvcs=false", "-ldflags=-s -w", "-o", path, ".")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", serverSource, err, out)
	}
	return path, nil
})

// launch starts a server over dir and waits until it listens.
func launch(dir string, flags ...string) (*gateway, error) {
	path, err := program()
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(workplace, fmt.Sprintf("%d.sock", sockets.Add(1)))
	server := exec.Command(path, append([]string{"-dir", dir, "-socket", socket}, flags...)...)
	var stderr bytes.Buffer
	server.Stderr = &stderr
	stdin, err := server.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := server.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := server.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && lines.Text() != "ready" {
	}
	if lines.Text() != "ready" {
		err := server.Wait()
		return nil, fmt.Errorf("the server did not start: %w: %s", err, stderr.String())
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines.Scan() {
		}
	}()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 16,
	}
	return &gateway{dir: dir, client: newClient(&http.Client{Transport: transport}, "http://s3.test"), stop: func() {
		transport.CloseIdleConnections()
		_ = stdin.Close() // which ends it
		<-drained
		_ = server.Wait()
	}}, nil
}

var sockets atomic.Int64

func newClient(client aws.HTTPClient, endpoint string) *s3.Client {
	return newClientWith(client, endpoint, "test-secret")
}

func newClientWith(client aws.HTTPClient, endpoint, secret string) *s3.Client {
	return s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: &endpoint, UsePathStyle: true, HTTPClient: client,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "test", SecretAccessKey: secret}, nil
		}),
	})
}

var shared = sync.OnceValues(func() (*gateway, error) {
	dir := filepath.Join(workplace, "shared")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	g, err := launch(dir)
	sharedStarted.Store(g)
	return g, err
})

var sharedStarted atomic.Pointer[gateway]

func stopShared() {
	if g := sharedStarted.Load(); g != nil {
		g.stop()
	}
}

// startGateway returns the gateway that all tests share.
func startGateway(t *testing.T) *gateway {
	t.Helper()
	if testing.Short() {
		t.Skip("starts an S3 server; left out with -short")
	}
	g, err := shared()
	if err != nil {
		unavailable(t, err)
	}
	return g
}

// unavailable skips the test where the server cannot be built or run, but not in CI.
func unavailable(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("WRIT_CI") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// bucket creates a bucket of the test's own.
func (g *gateway) bucket(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("bucket-%d", sockets.Add(1))
	if _, err := g.client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
	return name
}

func storeOf(t testing.TB, client *s3.Client, bucket string) s3fence.Store {
	t.Helper()
	store, err := awss3.New(client, bucket)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// onEach runs a test on the storage in memory and on the real one, so that the one stays true to the other.
func onEach(t *testing.T, test func(t *testing.T, store s3fence.Store)) {
	t.Run("memory", func(t *testing.T) { test(t, newMemory()) })
	t.Run("versitygw", func(t *testing.T) {
		g := startGateway(t)
		test(t, storeOf(t, g.client, g.bucket(t)))
	})
}

// rawPut writes as somebody who knows nothing of fencing.
func (g *gateway) rawPut(t *testing.T, bucket, key, body string, set ...func(*s3.PutObjectInput)) (etag string, err error) {
	t.Helper()
	in := &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(body)}
	for _, f := range set {
		f(in)
	}
	out, err := g.client.PutObject(t.Context(), in)
	if err != nil {
		return "", err
	}
	return aws.ToString(out.ETag), nil
}

func ifMatch(etag string) func(*s3.PutObjectInput) {
	return func(in *s3.PutObjectInput) { in.IfMatch = &etag }
}

func ifAbsent(in *s3.PutObjectInput) { in.IfNoneMatch = aws.String("*") }

func withMetadata(pairs ...string) func(*s3.PutObjectInput) {
	return func(in *s3.PutObjectInput) {
		in.Metadata = make(map[string]string)
		for i := 0; i < len(pairs); i += 2 {
			in.Metadata[pairs[i]] = pairs[i+1]
		}
	}
}

// codeOf returns S3's code of an error, "" if it has none.
func codeOf(err error) string {
	var coded interface{ ErrorCode() string }
	if errors.As(err, &coded) {
		return coded.ErrorCode()
	}
	return ""
}
