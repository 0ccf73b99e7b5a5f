package s3fence_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/writ-io/writ/fence/s3fence"
)

// What fencing costs against a real gateway, 1 KiB a write. Raw is a write without any condition.
func BenchmarkWrite(b *testing.B) {
	if testing.Short() {
		b.Skip("starts an S3 server; left out with -short")
	}
	g, err := shared()
	if err != nil {
		b.Skip(err)
	}
	bucket, body := "bench", strings.Repeat("x", 1<<10)
	_, _ = g.client.CreateBucket(b.Context(), &s3.CreateBucketInput{Bucket: &bucket}) // may be there from the last round
	store := storeOf(b, g.client, bucket)
	b.Run("raw", func(b *testing.B) {
		key := "raw"
		for b.Loop() {
			if _, err := g.client.PutObject(b.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(body)}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("object", func(b *testing.B) {
		objects := objectsOn(b, store)
		for b.Loop() {
			if _, err := objects.Put(b.Context(), "k", tok(1), []byte(body)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("manifest", func(b *testing.B) {
		m := openManifest(b, store, tok(1))
		for b.Loop() {
			if err := update(m, set("k", body)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("takeover", func(b *testing.B) {
		token := tok(1)
		for b.Loop() {
			token++
			if _, err := s3fence.OpenManifest(b.Context(), store, config(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
}
