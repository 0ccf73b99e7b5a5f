package guard_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/fence/guard/floors"
)

// Floors survive, and a process that ended cleanly leaves nothing to be waited out.
func TestRestart(t *testing.T) {
	for name, clean := range map[string]bool{"clean": true, "crashed": false} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(r *rig) {
				r.ready()
				r.admit("orders", tok(50)).Done(fence.Finished)
				if clean {
					r.close()
					if r.quorum.leaves != 1 {
						t.Fatalf("%d goodbyes", r.quorum.leaves)
					}
				} else {
					r.kill()
				}
				r.start()
				// The quorum knows nothing of the token, but the file does.
				r.refuse(fence.Write{Resource: "orders", Token: tok(49)}, fence.ErrStale)
				a := r.ask(r.Context(), "orders", tok(51))
				if a.done.Load() != clean {
					t.Fatalf("admitted at once: %v, %v", a.done.Load(), a.err)
				}
				r.pass(slack + time.Second)
				if !a.done.Load() || a.err != nil {
					t.Fatalf("%+v", a)
				}
			})
		})
	}
}

// A guard whose file got lost learns from the quorum, and waits for what the process before may have under way.
func TestLostFile(t *testing.T) {
	simulate(t, func(r *rig) {
		r.ready()
		r.admit("orders", tok(50)).Done(fence.Finished)
		r.close()
		if err := os.Remove(r.config.Store); err != nil {
			t.Fatal(err)
		}
		r.quorum.floors["orders"] = tok(50)
		r.start()
		r.refuse(fence.Write{Resource: "orders", Token: tok(49)}, fence.ErrStale)
		a := r.ask(r.Context(), "orders", tok(50))
		r.pass(slack - time.Second)
		if a.done.Load() {
			t.Fatal("admitted before what went before was waited out")
		}
		r.pass(2 * time.Second)
		if !a.done.Load() || a.err != nil {
			t.Fatalf("%+v", a)
		}
		e := r.quorum.enrols
		if len(e) != 2 || e[0].GetStore() == e[1].GetStore() || e[1].GetVersion() != 0 {
			t.Errorf("enrolled as %v", e)
		}
	})
}

func TestTwoGuardsOneFile(t *testing.T) {
	simulate(t, func(r *rig) {
		r.ready()
		if _, err := guard.New(r.config); !errors.Is(err, floors.ErrInUse) {
			t.Errorf("error %v, want ErrInUse", err)
		}
	})
}

func TestFilesThatCannotBeUsed(t *testing.T) {
	simulate(t, func(r *rig) {
		for name, content := range map[string]string{"text": strings.Repeat("hello\n", 2000), "empty": ""} {
			r.config.Store = filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(r.config.Store, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := guard.New(r.config); !errors.Is(err, floors.ErrForeign) && !errors.Is(err, floors.ErrDamaged) {
				t.Errorf("%s: %v", name, err)
			}
		}
		r.config.Store = t.TempDir()
		if _, err := guard.New(r.config); err == nil {
			t.Error("a directory is a store")
		}
	})
}

// Close waits for writes under way, and says goodbye after them.
func TestCloseDrains(t *testing.T) {
	simulate(t, func(r *rig) {
		r.ready()
		a := r.admit("orders", tok(5))
		newer := r.ask(r.Context(), "orders", tok(6))
		closed := make(chan error, 1)
		ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
		defer cancel()
		go func() { closed <- r.guard.Close(ctx) }()
		synctest.Wait()
		if !newer.done.Load() {
			t.Fatal("still waiting though the guard stops")
		}
		r.obstacle(newer.err, fence.Stopping)
		r.refuse(fence.Write{Resource: "billing/x", Token: tok(6)}, fence.ErrUnavailable, fence.Stopping)
		r.pass(5 * time.Second)
		if r.quorum.leaves != 0 || isClosed(a.Cut()) {
			t.Fatal("gave up a write under way")
		}
		a.Done(fence.Finished)
		if err := <-closed; err != nil || r.quorum.leaves != 1 {
			t.Fatalf("%v, %d goodbyes", err, r.quorum.leaves)
		}
		r.refuse(fence.Write{Resource: "orders", Token: tok(6)}, fence.ErrUnavailable, fence.Stopping)
		if s := r.guard.Status(); !s.Closed || s.Ready() {
			t.Errorf("status %+v", s)
		}
		if err := r.guard.Close(ctx); err != nil {
			t.Errorf("closing again: %v", err)
		}
	})
}

// When its time is up, Close cuts off what is under way, and the next process assumes the worst.
func TestCloseGivesUp(t *testing.T) {
	simulate(t, func(r *rig) {
		r.ready()
		a, unasked := r.admit("orders", tok(5)), r.admit("orders", tok(5))
		cutOff := a.Cut()
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		if err := r.guard.Close(ctx); !errors.Is(err, guard.ErrNotDrained) || !strings.Contains(err.Error(), "2 writes") {
			t.Fatalf("error %v", err)
		}
		if !isClosed(cutOff) || !isClosed(unasked.Cut()) {
			t.Error("writes under way were not cut off")
		}
		a.Done(fence.Broken)
		unasked.Done(fence.Finished)
		r.start()
		b := r.ask(r.Context(), "orders", tok(6))
		if b.done.Load() {
			t.Fatal("the next process did not wait")
		}
		r.pass(slack + time.Second)
		if !b.done.Load() || b.err != nil {
			t.Fatalf("%+v", b)
		}
	})
}

// A guard that never spoke with the quorum can be closed.
func TestCloseUnseeded(t *testing.T) {
	simulate(t, func(r *rig) {
		r.start()
		r.pass(slack + time.Second)
		r.close()
	})
}

// Nobody is there to say goodbye to: what matters is that nothing is under way.
func TestCloseWithoutQuorum(t *testing.T) {
	simulate(t, func(r *rig) {
		r.ready()
		r.admit("orders", tok(5)).Done(fence.Finished)
		r.network.stopAll()
		r.pass(time.Second)
		began := time.Now()
		r.close()
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("waited %v for nobody", waited)
		}
		r.startNodes()
		r.start()
		r.admit("orders", tok(6)).Done(fence.Finished)
	})
}

// The disk is full at the moment of a raise: nothing is acknowledged, the guard lets itself lapse, and works again when there
// is space.
func TestDiskFullAtARaise(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	simulate(t, func(r *rig) {
		dir := t.TempDir()
		if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", dir).CombinedOutput(); err != nil {
			t.Skipf("mount: %v: %s", err, out)
		}
		defer func() {
			if err := exec.Command("umount", "-l", dir).Run(); err != nil {
				t.Error(err)
			}
		}()
		r.config.Store = filepath.Join(dir, "floors")
		r.ready()
		defer func() { r.kill() }()
		r.admit("orders", tok(5)).Done(fence.Finished)
		ballast := filepath.Join(dir, "ballast")
		if err := os.WriteFile(ballast, make([]byte, 128<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		// More than fits into the pages that the file has.
		for i := range 40 {
			r.quorum.raise("billing/"+strings.Repeat("x", 400)+string(rune('a'+i)), tok(8))
		}
		r.quorum.raise("orders", tok(9))
		synctest.Wait()
		r.pass(time.Second)
		contacts := r.quorum.contactCount()
		if s := r.guard.Status(); !s.StoreFailed || s.Ready() {
			t.Fatalf("status %+v", s)
		}
		r.wantAck("orders", 0, none)
		r.refuse(fence.Write{Resource: "orders", Token: tok(9)}, fence.ErrUnavailable, fence.StoreFailed)
		r.refuse(fence.Write{Resource: "orders", Token: tok(5)}, fence.ErrStale)
		r.pass(guardLease + time.Second)
		if n := r.quorum.contactCount(); n != contacts {
			t.Errorf("%d contacts, %d before the disk was full", n, contacts)
		}
		r.refuse(fence.Write{Resource: "orders", Token: tok(9)}, fence.ErrUnavailable, fence.Isolated)
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		r.pass(10 * time.Second)
		r.wantAck("orders", tok(9), acked)
		r.admit("orders", tok(9)).Done(fence.Finished)
		if s := r.guard.Status(); s.StoreFailed || !s.Ready() {
			t.Errorf("status %+v", s)
		}
	})
}
