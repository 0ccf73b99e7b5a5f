package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"github.com/bufbuild/protocompile/reporter"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"

	// Linked for the descriptors they register: these are the imports that a
	// .proto file of this repository may name.
	_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	_ "google.golang.org/genproto/googleapis/api/annotations"
	_ "google.golang.org/genproto/googleapis/api/httpbody"
	_ "google.golang.org/genproto/googleapis/rpc/code"
	_ "google.golang.org/genproto/googleapis/rpc/errdetails"
	_ "google.golang.org/genproto/googleapis/rpc/status"
	_ "google.golang.org/protobuf/types/known/anypb"
	_ "google.golang.org/protobuf/types/known/durationpb"
	_ "google.golang.org/protobuf/types/known/emptypb"
	_ "google.golang.org/protobuf/types/known/fieldmaskpb"
	_ "google.golang.org/protobuf/types/known/structpb"
	_ "google.golang.org/protobuf/types/known/timestamppb"
	_ "google.golang.org/protobuf/types/known/wrapperspb"
)

// compile parses and links sources, which are paths relative to dir, into the
// request that every plugin is given. Each error is reported with its
// file:line:column before compile returns.
func compile(ctx context.Context, dir string, sources []string, stderr io.Writer) (*pluginpb.CodeGeneratorRequest, error) {
	failures := 0
	report := func(severity string, err reporter.ErrorWithPos) {
		pos := err.GetPosition()
		fmt.Fprintf(stderr, "%s:%d:%d: %s%v\n",
			filepath.Join(dir, pos.Filename), pos.Line, pos.Col, severity, err.Unwrap())
	}
	compiler := protocompile.Compiler{
		Resolver: resolver(dir),
		// Comments reach the plugins only through source info.
		SourceInfoMode: protocompile.SourceInfoStandard,
		Reporter: reporter.NewReporter(
			func(err reporter.ErrorWithPos) error {
				failures++
				report("", err)
				return nil // keep going: one run should show every error
			},
			func(err reporter.ErrorWithPos) { report("warning: ", err) },
		),
	}
	files, err := compiler.Compile(ctx, sources...)
	// An import that cannot be resolved passes the reporter by.
	if withPos := (reporter.ErrorWithPos)(nil); failures == 0 && errors.As(err, &withPos) {
		failures++
		report("", withPos)
	}
	switch {
	case failures > 0:
		return nil, fmt.Errorf("%d error(s) in the .proto files under %s", failures, dir)
	case err != nil:
		return nil, fmt.Errorf("compile the .proto files under %s: %w", dir, err)
	}
	return newRequest(sources, files), nil
}

// resolver finds a file under dir first and among the linked ones second.
// protocompile.CompositeResolver would do, but for an import that neither has
// it reports the wrong half of the story: that dir does not hold it.
func resolver(dir string) protocompile.Resolver {
	sources := &protocompile.SourceResolver{ImportPaths: []string{dir}}
	return protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
		result, err := sources.FindFileByPath(path)
		if errors.Is(err, fs.ErrNotExist) {
			return linkedFile(path)
		}
		return result, err
	})
}

// linkedFile resolves an import from the descriptors linked into this program.
func linkedFile(path string) (protocompile.SearchResult, error) {
	file, err := protoregistry.GlobalFiles.FindFileByPath(path)
	if errors.Is(err, protoregistry.NotFound) {
		return protocompile.SearchResult{}, fmt.Errorf(
			"%s is neither under -dir nor linked into protogen; to import it, add its Go package to the imports of compile.go", path)
	}
	if err != nil {
		return protocompile.SearchResult{}, err
	}
	return protocompile.SearchResult{Desc: file}, nil
}

func newRequest(sources []string, files linker.Files) *pluginpb.CodeGeneratorRequest {
	request := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: sources,
		// The oldest protoc whose behaviour protocompile promises; protoc-gen-go
		// prints it in the header of the generated files.
		CompilerVersion: &pluginpb.Version{
			Major: proto.Int32(6), Minor: proto.Int32(0), Patch: proto.Int32(0), Suffix: proto.String("protocompile"),
		},
	}
	seen := make(map[string]bool)
	for _, file := range files {
		appendClosure(request, file, seen)
	}
	return request
}

// appendClosure adds file and everything it imports, imports first, which is
// the order that the plugin protocol demands.
func appendClosure(request *pluginpb.CodeGeneratorRequest, file protoreflect.FileDescriptor, seen map[string]bool) {
	if seen[file.Path()] {
		return
	}
	seen[file.Path()] = true
	imports := file.Imports()
	for i := range imports.Len() {
		appendClosure(request, imports.Get(i).FileDescriptor, seen)
	}
	request.ProtoFile = append(request.ProtoFile, descriptorOf(file))
}

func descriptorOf(file protoreflect.FileDescriptor) *descriptorpb.FileDescriptorProto {
	if result, ok := file.(linker.Result); ok {
		return result.FileDescriptorProto()
	}
	return protodesc.ToFileDescriptorProto(file)
}
