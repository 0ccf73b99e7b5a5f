package s3fence_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/s3fence"
)

// Two holders, one after the other, and the first one's late write. In a program, the store is one of package awss3.
func ExampleManifest() {
	ctx, store := context.Background(), newMemory()
	cfg := s3fence.Config{Resource: "billing/nightly", Prefix: "billing/"}
	first, err := s3fence.OpenManifest(ctx, store, cfg, tok(4)) // the tokens of their grants
	if err != nil {
		log.Fatal(err)
	}
	report := func(text string) func(s3fence.Snapshot) ([]s3fence.Change, error) {
		return func(s3fence.Snapshot) ([]s3fence.Change, error) {
			return []s3fence.Change{{Name: "report.txt", Body: strings.NewReader(text)}}, nil
		}
	}
	if _, err := first.Update(ctx, report("by the first")); err != nil {
		log.Fatal(err)
	}

	second, err := s3fence.OpenManifest(ctx, store, cfg, tok(5))
	if err != nil {
		log.Fatal(err)
	}
	_, err = first.Update(ctx, report("late"))
	fmt.Println(errors.Is(err, fence.ErrStale))

	body, err := second.Get(ctx, "report.txt")
	fmt.Printf("%s %v\n", body, err)
	// Output:
	// true
	// by the first <nil>
}

func ExampleObjects() {
	ctx, store := context.Background(), newMemory()
	objects, err := s3fence.NewObjects(store, s3fence.Config{Resource: "billing/nightly", Prefix: "billing/"})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := objects.Put(ctx, "state", tok(4), []byte("1")); err != nil {
		log.Fatal(err)
	}
	// The next holder touches what it relies on before it reads it.
	item, err := objects.Touch(ctx, "state", tok(5))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s under %s\n", item.Body, item.Token)
	_, err = objects.Put(ctx, "state", tok(4), []byte("2"))
	fmt.Println(err)
	// Output:
	// 1 under 1.5
	// fence: stale token: 1.4 for resource "billing/nightly" is below the floor 1.5: stop writing and acquire again
}

func ExampleVerify() {
	report, err := s3fence.Verify(context.Background(), s3fence.VerifyConfig{Prefix: "billing/"}, newMemory())
	if err != nil {
		log.Fatal(err) // it could not be asked
	}
	fmt.Println(len(report.Findings), "checks,", report.Races, "races:", report.Err())
	// Output:
	// 9 checks, 128 races: <nil>
}
