package s3fence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/writ-io/writ/fence"
)

// Check is something that fencing needs of a storage.
type Check string

// The checks of [Verify].
const (
	// CheckCreate: a write on condition of absence is refused if there is an object.
	CheckCreate Check = "create-if-absent"
	// CheckMatch: a write on condition of an ETag happens if the object has it, and is refused if it has another.
	CheckMatch Check = "write-if-match"
	// CheckMatchMissing: a write on condition of an ETag is refused if there is no object.
	CheckMatchMissing Check = "write-if-match-missing"
	// CheckETag: another content has another ETag, the one that writing it answered.
	CheckETag Check = "etag"
	// CheckMetadata: metadata comes back as it was written.
	CheckMetadata Check = "metadata"
	// CheckReadAfterWrite: what was written is what is read and listed from then on, through every entry point.
	CheckReadAfterWrite Check = "read-after-write"
	// CheckCreateRace: of several who create the same object at once, one succeeds.
	CheckCreateRace Check = "create-race"
	// CheckMatchRace: of several who replace the same state at once, one succeeds.
	CheckMatchRace Check = "write-race"
	// CheckReadRace: no read that runs into a write answers the body before it with the ETag after it.
	CheckReadRace Check = "read-race"
)

// VerifyConfig says how thoroughly to look.
type VerifyConfig struct {
	// Prefix is where to write, as in [Config]. Everything written is removed again.
	Prefix string
	// Rounds is how many races of each kind are run; 0: 32.
	Rounds int
	// Rivals is how many writers race in each; 0: 8.
	Rivals int
}

// Finding is the result of a check.
type Finding struct {
	Check Check
	// Broken says what the storage did instead; empty: nothing wrong was seen.
	Broken string
}

// Report is what [Verify] found.
type Report struct {
	Findings []Finding
	// Races is how many races were run.
	Races int
}

// Err returns nil if no check found the storage broken, else an error that matches [ErrUnsafe] and names them all.
func (r Report) Err() error {
	var broken []string
	for _, f := range r.Findings {
		if f.Broken != "" {
			broken = append(broken, fmt.Sprintf("%s: %s", f.Check, f.Broken))
		}
	}
	if broken == nil {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrUnsafe, strings.Join(broken, "; "))
}

// Verify writes to a storage and tells what of that which fencing needs it does not do. Give several stores if the same
// bucket is reached in several ways, such as through several gateways: the races are then between them.
//
// That nothing wrong was seen in races is no proof. An error means that the storage could not be asked.
func Verify(ctx context.Context, cfg VerifyConfig, stores ...Store) (Report, error) {
	if len(stores) == 0 {
		return Report{}, invalid("stores", "", "give at least one")
	}
	if err := (Config{Resource: "verify", Prefix: cfg.Prefix}).Validate(); err != nil {
		return Report{}, err
	}
	if cfg.Rounds < 0 || cfg.Rivals < 0 || cfg.Rivals == 1 {
		return Report{}, invalid("Rounds or Rivals", fmt.Sprint(cfg.Rounds, ", ", cfg.Rivals), "use at least 0 rounds, and 0 or at least 2 rivals")
	}
	if cfg.Rounds == 0 {
		cfg.Rounds = 32
	}
	if cfg.Rivals == 0 {
		cfg.Rivals = 8
	}
	p := &probe{stores: stores, cfg: cfg, prefix: cfg.Prefix + verifyKey + newNonce() + "/", broken: make(map[Check]string)}
	err := p.run(ctx)
	if cleanup := p.cleanUp(context.WithoutCancel(ctx)); err == nil {
		err = cleanup
	}
	if err != nil {
		return Report{}, fmt.Errorf("verify: %w", err)
	}
	report := Report{Races: p.races}
	for _, check := range []Check{
		CheckCreate, CheckMatch, CheckMatchMissing, CheckETag, CheckMetadata, CheckReadAfterWrite,
		CheckCreateRace, CheckMatchRace, CheckReadRace,
	} {
		report.Findings = append(report.Findings, Finding{Check: check, Broken: p.broken[check]})
	}
	return report, nil
}

// probe is one run of Verify.
type probe struct {
	stores []Store
	cfg    VerifyConfig
	prefix string
	keys   []string
	broken map[Check]string
	races  int
}

func (p *probe) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{p.conditions, p.reads, p.raceCreates, p.raceWrites, p.raceReads} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// found keeps the first thing that is wrong.
func (p *probe) found(check Check, format string, args ...any) {
	if p.broken[check] == "" {
		p.broken[check] = fmt.Sprintf(format, args...)
	}
}

// key returns a new key, which cleanUp removes.
func (p *probe) key() string {
	key := p.prefix + newNonce()
	p.keys = append(p.keys, key)
	return key
}

func (p *probe) cleanUp(ctx context.Context) error {
	var errs []error
	for _, key := range p.keys {
		errs = append(errs, p.stores[0].Delete(ctx, key))
	}
	return errors.Join(errs...)
}

// probeToken stands in the metadata of what a probe writes.
const probeToken = fence.Token(1<<48 | 1)

// put answers whether the storage wrote.
func put(ctx context.Context, store Store, key, body string, condition Condition) (etag string, wrote bool, err error) {
	etag, err = store.Put(ctx, key, Input{
		Body: strings.NewReader(body), Size: int64(len(body)),
		Metadata: map[string]string{TokenMetadata: probeToken.Decimal()}, If: condition,
	})
	if errors.Is(err, ErrPrecondition) {
		return "", false, nil
	}
	return etag, err == nil, err
}

// get answers the body, ETag and token metadata, all empty if there is no object.
func get(ctx context.Context, store Store, key string) (body, etag string, token fence.Token, err error) {
	object, err := store.Get(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return "", "", 0, nil
	}
	if err != nil {
		return "", "", 0, err
	}
	defer object.Body.Close()
	var data bytes.Buffer
	if _, err := data.ReadFrom(io.LimitReader(object.Body, 1<<20)); err != nil {
		return "", "", 0, err
	}
	token, _ = metadataToken(object.Metadata) // what is unreadable has not come back
	return data.String(), object.ETag, token, nil
}

// conditions asks for each condition when it holds and when it does not.
func (p *probe) conditions(ctx context.Context) error {
	store, key := p.stores[0], p.key()
	first, wrote, err := put(ctx, store, key, "first", Condition{Absent: true})
	if err != nil {
		return err
	}
	if !wrote {
		p.found(CheckCreate, "it refused to create an object that did not exist")
		return nil
	}
	if _, wrote, err = put(ctx, store, key, "second", Condition{Absent: true}); err != nil {
		return err
	}
	if wrote {
		p.found(CheckCreate, "it wrote over an object that exists")
	}
	third, wrote, err := put(ctx, store, key, "third", Condition{Match: first})
	if err != nil {
		return err
	}
	if !wrote && p.broken[CheckCreate] == "" {
		p.found(CheckMatch, "it refused a write with the present ETag %s", first)
	}
	if wrote && (third == first || third == "") {
		p.found(CheckETag, "after other content the ETag is %q, after %q", third, first)
	}
	if _, wrote, err = put(ctx, store, key, "fourth", Condition{Match: first}); err != nil {
		return err
	}
	if wrote {
		p.found(CheckMatch, "it wrote over an object whose ETag is not the one asked for")
	}
	if _, wrote, err = put(ctx, store, p.key(), "fifth", Condition{Match: first}); err != nil {
		return err
	}
	if wrote {
		p.found(CheckMatchMissing, "it created an object on condition of an ETag")
	}
	return nil
}

// reads asks whether what was written is read and listed, through every entry point.
func (p *probe) reads(ctx context.Context) error {
	key := p.key()
	condition := Condition{Absent: true}
	for i := range 2 * len(p.stores) {
		body := fmt.Sprintf("%d %s", i, newNonce())
		written, wrote, err := put(ctx, p.stores[i%len(p.stores)], key, body, condition)
		if err != nil {
			return err
		}
		if !wrote {
			p.found(CheckReadAfterWrite, "it refused a write with the ETag %q that the write before answered", condition.Match)
			return nil
		}
		condition = Condition{Match: written}
		for _, store := range p.stores {
			got, etag, token, err := get(ctx, store, key)
			if err != nil {
				return err
			}
			switch {
			case got != body:
				p.found(CheckReadAfterWrite, "it answered a read with something other than the last write")
			case etag != written:
				p.found(CheckETag, "the write answered %q, reading it %q", written, etag)
			case token != probeToken:
				p.found(CheckMetadata, "metadata %s did not come back", TokenMetadata)
			}
			listed := false
			for name, err := range store.List(ctx, p.prefix) {
				if err != nil {
					return err
				}
				listed = listed || name == key
			}
			if !listed {
				p.found(CheckReadAfterWrite, "it did not list what was written")
			}
		}
	}
	return nil
}
