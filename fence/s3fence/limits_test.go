package s3fence_test

import (
	"context"
	"errors"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/s3fence"
)

// These tests show limits: each passes because something is not prevented. The package's documentation lists them.

// The documentation names every limit's test, and no test that does not exist.
func TestLimitsAreDocumented(t *testing.T) {
	pattern := regexp.MustCompile(`\bTestLimit\w+`)
	file, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		t.Fatal(err)
	}
	documented := pattern.FindAllString(file.Doc.Text(), -1)
	var tested []string
	names, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range regexp.MustCompile(`(?m)^func TestLimit\w+\(`).FindAllString(string(content), -1) {
			tested = append(tested, pattern.FindString(line))
		}
	}
	tested = slices.DeleteFunc(tested, func(name string) bool { return name == "TestLimitsAreDocumented" })
	slices.Sort(documented)
	slices.Sort(tested)
	if len(tested) < 10 || !slices.Equal(slices.Compact(documented), tested) {
		t.Fatalf("documented are\n\t%s\ntested are\n\t%s", strings.Join(documented, "\n\t"), strings.Join(tested, "\n\t"))
	}
}

// The reason for the seal: a condition cannot tell a state from a later one with the same bytes, whatever the metadata.
func TestLimitIdenticalBytesKeepTheirETag(t *testing.T) {
	g := startGateway(t)
	bucket := g.bucket(t)
	old, err := g.rawPut(t, bucket, "k", "same", withMetadata(s3fence.TokenMetadata, tok(1).Decimal()))
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := g.rawPut(t, bucket, "k", "same", withMetadata(s3fence.TokenMetadata, tok(2).Decimal()), ifMatch(old))
	if err != nil {
		t.Fatal(err)
	}
	if renewed != old {
		t.Fatalf("ETags %s and %s: the token in the metadata suffices here", old, renewed)
	}
	if _, err := g.rawPut(t, bucket, "k", "zombie", ifMatch(old)); err != nil {
		t.Fatalf("the zombie was refused: %v", err)
	}
}

func TestLimitUntouchedKeysStayWritable(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		objects := objectsOn(t, store)
		if _, err := objects.Touch(t.Context(), "touched", tok(2)); err != nil {
			t.Fatal(err)
		}
		if _, err := objects.Put(t.Context(), "untouched", tok(1), []byte("zombie")); err != nil {
			t.Fatalf("the zombie was refused: %v", err)
		}
		wantBody(t, objects, "untouched", "zombie", tok(1)) // the token shows it
	})
}

func TestLimitFenceIsCheckThenAct(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		paused, reached, release := pauseBeforePut(store, "k")
		zombie := make(chan error, 1)
		go func() {
			_, err := objectsOn(t, paused).Put(context.Background(), "k", tok(1), []byte("zombie"))
			zombie <- err
		}()
		<-reached // after it has read the fence
		objects := objectsOn(t, store)
		if err := objects.Raise(t.Context(), tok(2)); err != nil {
			t.Fatal(err)
		}
		close(release)
		if err := <-zombie; err != nil {
			t.Fatalf("the zombie was refused: %v", err)
		}
		wantBody(t, objects, "k", "zombie", tok(1))
	})
}

// Single objects are atomic one by one: a holder that stops halfway leaves half, and a zombie can be refused halfway.
func TestLimitSeveralObjectsAreNotAtomic(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		paused, reached, release := pauseBeforePut(store, "second")
		first := make(chan error, 2)
		go func() {
			objects := objectsOn(t, paused)
			for _, key := range []string{"first", "second"} {
				_, err := objects.Put(context.Background(), key, tok(1), []byte("transfer"))
				first <- err
			}
		}()
		<-reached
		objects := objectsOn(t, store)
		if n, err := objects.TouchAll(t.Context(), tok(2)); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		if _, err := objects.Touch(t.Context(), "second", tok(2)); err != nil {
			t.Fatal(err)
		}
		close(release)
		if err := <-first; err != nil {
			t.Fatal(err)
		}
		wantStale(t, <-first, tok(1), tok(2))
		wantBody(t, objects, "first", "transfer", tok(2))
		if _, err := objects.Get(t.Context(), "second"); !errors.Is(err, s3fence.ErrNotFound) {
			t.Fatal(err)
		}
	})
}

func TestLimitReadsAreNotFenced(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		zombie := openManifest(t, store, tok(1))
		if err := update(openManifest(t, store, tok(2)), set("a", "2")); err != nil {
			t.Fatal(err)
		}
		if got, err := zombie.Get(t.Context(), "a"); err != nil || string(got) != "2" {
			t.Fatalf("got %q, %v", got, err)
		}
	})
}

// Who writes without this package, and without a condition, is stopped by nothing. It is noticed.
func TestLimitForeignWritersAreNotStopped(t *testing.T) {
	g := startGateway(t)
	bucket := g.bucket(t)
	objects := objectsOn(t, storeOf(t, g.client, bucket))
	if _, err := objects.Put(t.Context(), "k", tok(2), []byte("ours")); err != nil {
		t.Fatal(err)
	}
	if _, err := g.rawPut(t, bucket, "app/k", "foreign"); err != nil {
		t.Fatal(err)
	}
	if _, err := objects.Get(t.Context(), "k"); !errors.Is(err, s3fence.ErrForeign) {
		t.Fatal(err)
	}
	if _, err := objects.Put(t.Context(), "k", tok(3), []byte("ours")); !errors.Is(err, s3fence.ErrForeign) {
		t.Fatal(err)
	}
}

// What is really removed is forgotten, tombstone and all.
func TestLimitRemovedObjectsAreForgotten(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		objects := objectsOn(t, store)
		if _, err := objects.Delete(t.Context(), "k", tok(2)); err != nil {
			t.Fatal(err)
		}
		_, err := objects.Put(t.Context(), "k", tok(1), []byte("zombie"))
		wantStale(t, err, tok(1), tok(2))
		if err := store.Delete(t.Context(), "app/k"); err != nil { // a lifecycle rule, or a tidy hand
			t.Fatal(err)
		}
		if _, err := objects.Put(t.Context(), "k", tok(1), []byte("zombie")); err != nil {
			t.Fatalf("the zombie was refused: %v", err)
		}
		// A removed manifest is at least noticed by its holder.
		m := openManifest(t, store, tok(2))
		if err := store.Delete(t.Context(), "app/.writ-manifest"); err != nil {
			t.Fatal(err)
		}
		if err := update(m, set("a", "1")); !errors.Is(err, s3fence.ErrDamaged) || !strings.Contains(err.Error(), "the manifest is gone") {
			t.Fatal(err)
		}
	})
}

// Restoring an old state, bytes and metadata, brings its ETag back, and with it the zombie that knows it.
func TestLimitRestoredStatesRevive(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		objects := objectsOn(t, store)
		old, err := objects.Put(t.Context(), "k", tok(1), []byte("old"))
		if err != nil {
			t.Fatal(err)
		}
		backup := copyOf(t, store, "app/k")
		paused, reached, release := pauseBeforePut(store, "k")
		zombie := make(chan error, 1)
		go func() {
			_, err := objectsOn(t, paused).Put(context.Background(), "k", tok(1), []byte("zombie"))
			zombie <- err
		}()
		<-reached
		newer, err := objects.Touch(t.Context(), "k", tok(2))
		if err != nil {
			t.Fatal(err)
		}
		backup.If = s3fence.Condition{Match: newer.ETag}
		if etag, err := store.Put(t.Context(), "app/k", backup); err != nil || etag != old.ETag {
			t.Fatal(etag, err)
		}
		close(release)
		if err := <-zombie; err != nil {
			t.Fatalf("the zombie was refused: %v", err)
		}
	})
}

func copyOf(t *testing.T, store s3fence.Store, key string) s3fence.Input {
	t.Helper()
	object, err := store.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer object.Body.Close()
	var body strings.Builder
	buf := make([]byte, 1<<10)
	for {
		n, err := object.Body.Read(buf)
		body.Write(buf[:n])
		if err != nil {
			break
		}
	}
	return s3fence.Input{Body: strings.NewReader(body.String()), Size: int64(body.Len()), Metadata: object.Metadata}
}

// What the directory under versitygw holds without its attributes, it shows to readers, but conditions do not see it.
func TestLimitFilesPutIntoTheDirectory(t *testing.T) {
	g := startGateway(t)
	bucket := g.bucket(t)
	if err := os.WriteFile(filepath.Join(g.dir, bucket, "k"), []byte("by hand"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := g.client.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: aws.String("k")}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.rawPut(t, bucket, "k", "created", ifAbsent); err != nil {
		t.Fatalf("a condition of absence was refused: %v", err)
	}
}

// Several gateways over one directory without a lock file have conditions of their own each.
func TestLimitGatewaysWithoutLockFile(t *testing.T) {
	stores := twoGateways(t, "-lock-file=false")
	races := 0
	for range 20 {
		report, err := s3fence.Verify(t.Context(), s3fence.VerifyConfig{Rounds: 50}, stores...)
		if err != nil {
			t.Fatal(err)
		}
		races += report.Races
		if err := report.Err(); err != nil {
			t.Logf("within %d races: %v", races, err)
			return
		}
	}
	t.Skipf("nothing went wrong in %d races, which proves nothing", races)
}

// versitygw does not hold the lock for a conditional deletion, and calls one of a missing object done. This package never
// asks for one: it deletes by writing, and removes only what nobody can refer to.
func TestLimitConditionalDelete(t *testing.T) {
	g := startGateway(t)
	bucket := g.bucket(t)
	remove := func(key, etag string) error {
		_, err := g.client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: &key, IfMatch: &etag})
		return err
	}
	if err := remove("missing", `"d41d8cd98f00b204e9800998ecf8427e"`); err != nil {
		t.Fatalf("a missing object: %v", err)
	}
	old, err := g.rawPut(t, bucket, "k", "1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.rawPut(t, bucket, "k", "2"); err != nil {
		t.Fatal(err)
	}
	if err := remove("k", old); codeOf(err) != "PreconditionFailed" {
		t.Fatalf("another ETag: %v", err)
	}
	both := 0
	const rounds = 200
	for range rounds {
		etag, err := g.rawPut(t, bucket, "race", "old")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var removed, replaced error
		wg.Go(func() { removed = remove("race", etag) })
		wg.Go(func() { _, replaced = g.rawPut(t, bucket, "race", "new", ifMatch(etag)) })
		wg.Wait()
		if removed == nil && replaced == nil {
			both++
		}
	}
	t.Logf("of %d races between a deletion and a write on condition of the same ETag, both were told to have won in %d", rounds, both)
}

// versitygw enforces conditions where an upload in parts is completed, but this package does not upload in parts: an ETag
// of parts is no digest of the body, and 5 GiB fit into one request.
func TestLimitOneRequestPerObject(t *testing.T) {
	g := startGateway(t)
	bucket, key := g.bucket(t), "parts"
	complete := func(condition func(*s3.CompleteMultipartUploadInput)) error {
		upload, err := g.client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: &key})
		if err != nil {
			t.Fatal(err)
		}
		part, err := g.client.UploadPart(t.Context(), &s3.UploadPartInput{
			Bucket: &bucket, Key: &key, UploadId: upload.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("part"),
		})
		if err != nil {
			t.Fatal(err)
		}
		in := &s3.CompleteMultipartUploadInput{
			Bucket: &bucket, Key: &key, UploadId: upload.UploadId,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: part.ETag}}},
		}
		condition(in)
		_, err = g.client.CompleteMultipartUpload(t.Context(), in)
		return err
	}
	absent := func(in *s3.CompleteMultipartUploadInput) { in.IfNoneMatch = aws.String("*") }
	if err := complete(absent); err != nil {
		t.Fatal(err)
	}
	if err := complete(absent); codeOf(err) != "PreconditionFailed" {
		t.Fatalf("there is one already: %v", err)
	}
	err := complete(func(in *s3.CompleteMultipartUploadInput) {
		in.IfMatch = aws.String(`"d41d8cd98f00b204e9800998ecf8427e"`)
	})
	if codeOf(err) != "PreconditionFailed" {
		t.Fatalf("another ETag: %v", err)
	}
}

// Conditions as versitygw enforces them, one by one: the base of everything else.
func TestGatewayEnforcesConditions(t *testing.T) {
	g := startGateway(t)
	bucket := g.bucket(t)
	first, err := g.rawPut(t, bucket, "k", "1", ifAbsent)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, key, code string
		condition       func(*s3.PutObjectInput)
	}{
		{"absent, exists", "k", "PreconditionFailed", ifAbsent},
		{"match, other", "k", "PreconditionFailed", ifMatch(`"d41d8cd98f00b204e9800998ecf8427e"`)},
		{"match, missing", "none", "NoSuchKey", ifMatch(first)},
		{"match", "k", "", ifMatch(first)},
		{"match, gone by", "k", "PreconditionFailed", ifMatch(first)},
	} {
		if _, err := g.rawPut(t, bucket, c.key, "2", c.condition); codeOf(err) != c.code || (err == nil) != (c.code == "") {
			t.Errorf("%s: got %v, want code %q", c.name, err, c.code)
		}
	}
}

// A late writer whose token is newer than all is not stale, whenever it comes: the token orders grants, nothing else does.
func TestLimitNewestTokenAlwaysWrites(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		objects := objectsOn(t, store)
		invented := fence.Token(1<<62 | 1) // nobody granted it; a bare token proves nothing
		if _, err := objects.Put(t.Context(), "k", invented, []byte("x")); err != nil {
			t.Fatal(err)
		}
		_, err := objects.Put(t.Context(), "k", tok(1), []byte("the holder"))
		wantStale(t, err, tok(1), invented)
	})
}
