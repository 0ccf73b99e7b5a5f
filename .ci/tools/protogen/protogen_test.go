package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const validProto = `syntax = "proto3";
package scratch.v1;
import "buf/validate/validate.proto";
import "google/api/annotations.proto";
import "google/protobuf/duration.proto";
import "google/rpc/status.proto";
option go_package = "example.org/scratch/v1;scratchv1";

service Leases {
  // Acquire is bound to HTTP.
  rpc Acquire(Request) returns (google.rpc.Status) {
    option (google.api.http) = {post: "/v1/acquire" body: "*"};
  }
  // Watch is not.
  rpc Watch(Request) returns (stream Request);
}

message Request {
  // The lease to acquire.
  string name = 1 [(buf.validate.field).string.min_len = 1];
  google.protobuf.Duration ttl = 2;
}
`

// pluginDir holds the generators that go.mod names, built once for all tests.
var pluginDir string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "protogen")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		build := exec.Command("go", "build", "-buildvcs=false", "-o", dir+"/", "tool")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			panic(err)
		}
		pluginDir = dir
		return m.Run()
	}())
}

func TestGenerateThenCheck(t *testing.T) {
	root := newRoot(t, validProto)
	want := "missing: " + filepath.Join(root, "v1", "a.pb.go")
	if err := protogen(t, root, "-check"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("check before generating: %v, want %q among the error", err, want)
	}
	if err := protogen(t, root); err != nil {
		t.Fatal(err)
	}
	if err := protogen(t, root, "-check"); err != nil {
		t.Errorf("check after generating: %v", err)
	}
	for name, fragments := range map[string][]string{
		"a.pb.go": {
			"// The lease to acquire.",
			`_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"`,
			`_ "google.golang.org/genproto/googleapis/api/annotations"`,
		},
		"a_grpc.pb.go": {"// Acquire is bound to HTTP.", "// Watch is not."},
		"a.pb.gw.go":   {"/v1/acquire"},
	} {
		content := read(t, root, name)
		for _, fragment := range fragments {
			if !strings.Contains(content, fragment) {
				t.Errorf("%s does not contain %s", name, fragment)
			}
		}
	}
	if strings.Contains(read(t, root, "a.pb.gw.go"), "_Watch_") {
		t.Error("the gateway serves a method without an HTTP rule")
	}
}

func TestCheckNamesEveryDifference(t *testing.T) {
	root := newRoot(t, validProto)
	if err := protogen(t, root); err != nil {
		t.Fatal(err)
	}
	write(t, root, "gone.pb.go", "package v1\n")
	write(t, root, "a.pb.gw.go", "package v1\n")
	if err := os.Remove(filepath.Join(root, "v1", "a_grpc.pb.go")); err != nil {
		t.Fatal(err)
	}
	err := protogen(t, root, "-check")
	if err == nil {
		t.Fatal("check passed")
	}
	for _, want := range []string{
		"stale:   " + filepath.Join(root, "v1", "a.pb.gw.go"),
		"missing: " + filepath.Join(root, "v1", "a_grpc.pb.go"),
		"extra:   " + filepath.Join(root, "v1", "gone.pb.go"),
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not contain %q:\n%v", want, err)
		}
	}
	if err := protogen(t, root); err != nil {
		t.Fatal(err)
	}
	if err := protogen(t, root, "-check"); err != nil {
		t.Errorf("check after generating again: %v", err)
	}
}

func TestErrorsNameFileAndLine(t *testing.T) {
	for _, tt := range []struct{ old, new, want string }{
		{"string name = 1", "string name 1", "a.proto:20:15: syntax error"},
		{"google.protobuf.Duration ttl", "Missing ttl", "a.proto:21:3: "},
		{"google/rpc/status.proto", "google/rpc/nothing.proto", "a.proto:6:8: google/rpc/nothing.proto is neither under -dir nor linked into protogen"},
	} {
		root := newRoot(t, strings.Replace(validProto, tt.old, tt.new, 1))
		var stderr strings.Builder
		err := run(t.Context(), []string{"-plugins", pluginDir, "-dir", root}, &stderr)
		if want := filepath.Join(root, "v1", tt.want); err == nil || !strings.Contains(stderr.String(), want) {
			t.Errorf("with %q for %q: error %v and output\n%swant it to contain %q", tt.new, tt.old, err, stderr.String(), want)
		}
	}
}

func TestNoSourcesIsAnError(t *testing.T) {
	if err := protogen(t, t.TempDir()); err == nil {
		t.Error("protogen succeeded in an empty directory")
	}
}

func protogen(t *testing.T, root string, args ...string) error {
	t.Helper()
	return run(t.Context(), append([]string{"-plugins", pluginDir, "-dir", root}, args...), io.Discard)
}

func newRoot(t *testing.T, source string) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "v1"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, root, "a.proto", source)
	return root
}

func write(t *testing.T, root, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, "v1", name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, root, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "v1", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
