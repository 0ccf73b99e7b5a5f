package history

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/writ-io/writ/lease"
)

// ttl is that of all leases in these tests, in milliseconds.
const ttl = 100

// The constructors take call and return in milliseconds.

func span(op Op, call, ret int) Op {
	op.Resource, op.TTL = "r", ttl*time.Millisecond
	op.Call, op.Return = time.Duration(call)*time.Millisecond, time.Duration(ret)*time.Millisecond
	return op
}

func granted(call, ret int, who string, token uint64, data string) Op {
	return span(Op{Kind: Acquire, Instance: who, Outcome: OK, Saw: Sight{Token: token, Holder: who, Data: data}}, call, ret)
}

func refused(call, ret int, who string, token uint64, by string) Op {
	return span(Op{Kind: Acquire, Instance: who, Outcome: Held, Saw: Sight{Token: token, Holder: by}}, call, ret)
}

func lost(call, ret int, who string) Op {
	return span(Op{Kind: Acquire, Instance: who, Outcome: Unknown}, call, ret)
}

func under(kind Kind, call, ret int, who string, token uint64, outcome Outcome) Op {
	return span(Op{Kind: kind, Instance: who, Token: token, Outcome: outcome}, call, ret)
}

func stored(call, ret int, who string, token uint64, data string, outcome Outcome) Op {
	return span(Op{Kind: Checkpoint, Instance: who, Token: token, Data: data, Outcome: outcome}, call, ret)
}

func showsHeld(call, ret int, token uint64, by string) Op {
	return span(Op{Kind: Get, Outcome: OK, Saw: Sight{Token: token, Holder: by}}, call, ret)
}

func showsFree(call, ret int, token uint64, by string, end End) Op {
	return span(Op{Kind: Get, Outcome: OK, Saw: Sight{Token: token, Holder: by, Free: true, End: end}}, call, ret)
}

func showsNothing(call, ret int) Op { return span(Op{Kind: Get, Outcome: NotFound}, call, ret) }

func TestViolationsAreFound(t *testing.T) {
	for name, ops := range map[string][]Op{
		"two holders at a time":              {granted(0, 10, "a", 1, ""), granted(20, 99, "b", 2, "")},
		"two holders after a renewal":        {granted(0, 10, "a", 1, ""), under(Renew, 50, 60, "a", 1, OK), granted(70, 149, "b", 2, "")},
		"two holders at once":                {granted(0, 90, "a", 1, ""), granted(0, 90, "b", 2, "")},
		"token repeated":                     {granted(0, 10, "a", 5, ""), under(Release, 20, 30, "a", 5, OK), granted(40, 50, "b", 5, "")},
		"token going back":                   {granted(0, 10, "a", 5, ""), under(Release, 20, 30, "a", 5, OK), granted(40, 50, "b", 4, "")},
		"token going back after expiry":      {granted(0, 10, "a", 5, ""), granted(200, 210, "b", 4, "")},
		"stale read of a free resource":      {granted(0, 10, "a", 1, ""), under(Release, 20, 30, "a", 1, OK), showsHeld(40, 50, 1, "a")},
		"stale read of an old grant":         {granted(0, 10, "a", 1, ""), granted(200, 210, "b", 2, ""), showsHeld(220, 230, 1, "a")},
		"stale read of nothing":              {granted(0, 10, "a", 1, ""), showsNothing(20, 30)},
		"reads that go back":                 {granted(0, 10, "a", 1, ""), showsFree(200, 210, 1, "a", EndExpired), showsHeld(220, 230, 1, "a")},
		"read of a grant not made":           {granted(0, 10, "a", 1, ""), showsHeld(20, 30, 2, "b")},
		"refusal that names nobody's":        {granted(0, 10, "a", 1, ""), refused(20, 30, "b", 1, "c")},
		"refusal while it is free":           {granted(0, 10, "a", 1, ""), under(Release, 20, 30, "a", 1, OK), refused(40, 50, "b", 1, "a")},
		"renewal after another grant":        {granted(0, 10, "a", 1, ""), granted(200, 210, "b", 2, ""), under(Renew, 220, 230, "a", 1, OK)},
		"renewal of what was seen free":      {granted(0, 10, "a", 1, ""), showsFree(200, 210, 1, "a", EndExpired), under(Renew, 220, 230, "a", 1, OK)},
		"renewal of what has expired":        {granted(0, 10, "a", 1, ""), under(Renew, 200, 210, "a", 1, Expired), under(Renew, 220, 230, "a", 1, OK)},
		"renewal after release":              {granted(0, 10, "a", 1, ""), under(Release, 20, 30, "a", 1, OK), under(Renew, 40, 50, "a", 1, OK)},
		"renewal by another":                 {granted(0, 10, "a", 1, ""), under(Renew, 20, 30, "b", 1, OK)},
		"release by an old token":            {granted(0, 10, "a", 1, ""), granted(200, 210, "b", 2, ""), under(Release, 220, 230, "a", 1, OK)},
		"released twice":                     {granted(0, 10, "a", 1, ""), under(Release, 20, 30, "a", 1, OK), under(Release, 40, 50, "a", 1, OK)},
		"renewal refused too early":          {granted(0, 10, "a", 1, ""), under(Renew, 20, 99, "a", 1, Expired)},
		"renewal refused for nothing":        {granted(0, 10, "a", 1, ""), under(Renew, 20, 99, "a", 1, NotHolder)},
		"release that nobody asked for":      {granted(0, 10, "a", 1, ""), under(Renew, 20, 300, "a", 1, Released)},
		"seen free too early":                {granted(0, 10, "a", 1, ""), showsFree(20, 99, 1, "a", EndExpired)},
		"seen free too early beside another": {granted(0, 10, "a", 1, ""), showsFree(20, 200, 1, "a", EndExpired), showsFree(30, 95, 1, "a", EndExpired)},
		"wrong end":                          {granted(0, 10, "a", 1, ""), under(Release, 20, 30, "a", 1, OK), showsFree(200, 210, 1, "a", EndExpired)},
		"acknowledged renewal forgotten":     {granted(0, 10, "a", 1, ""), under(Renew, 90, 95, "a", 1, OK), showsFree(120, 130, 1, "a", EndExpired)},
		"checkpoint lost": {granted(0, 10, "a", 1, ""), stored(20, 30, "a", 1, "x", OK), under(Release, 40, 50, "a", 1, OK),
			granted(60, 70, "b", 2, "")},
		"checkpoint going back": {granted(0, 10, "a", 1, ""), stored(20, 30, "a", 1, "x", OK), stored(40, 50, "a", 1, "y", OK),
			granted(200, 210, "b", 2, "x")},
		"checkpoint under an old token": {granted(0, 10, "a", 1, ""), granted(200, 210, "b", 2, ""), stored(220, 230, "a", 1, "x", OK)},
		"checkpoint out of nothing":     {granted(0, 10, "a", 1, "x")},
		"effect before the call":        {granted(0, 10, "a", 1, ""), refused(200, 210, "b", 2, "c"), lost(220, 900, "c")},
		"checkpoint before the call":    {granted(0, 10, "a", 1, ""), granted(200, 210, "b", 2, "x"), stored(220, 900, "a", 1, "x", Unknown)},
		"refused, but done": {granted(0, 10, "a", 1, ""), under(Release, 20, 30, "a", 1, Refused),
			granted(40, 50, "b", 2, "")},
		// As a node answered that had passed the request on twice, and the first coordinator had carried it out.
		"refused, but granted": {granted(0, 10, "a", 1, ""), under(Release, 20, 30, "a", 1, OK),
			span(Op{Kind: Acquire, Instance: "c", Outcome: Refused}, 40, 50), refused(60, 70, "b", 2, "c"), showsHeld(60, 70, 2, "c")},
		"unknown release, then renewed": {granted(0, 10, "a", 1, ""), under(Release, 20, 30, "a", 1, Unknown),
			showsFree(40, 50, 1, "a", EndReleased), under(Renew, 60, 70, "a", 1, OK)},
	} {
		var violation *Violation
		if err := Check(ops, time.Minute); !errors.As(err, &violation) {
			t.Errorf("%s: %v", name, err)
		} else if violation.Resource != "r" || len(violation.Next) == 0 || !strings.Contains(violation.Error(), "r is not linearizable") {
			t.Errorf("%s: the explanation is %v", name, violation)
		}
	}
}

func TestSoundHistoriesPass(t *testing.T) {
	for name, ops := range map[string][]Op{
		"nothing":                     {},
		"life":                        {showsNothing(0, 1), granted(2, 10, "a", 1, ""), showsHeld(11, 12, 1, "a"), under(Renew, 50, 60, "a", 1, OK), stored(70, 80, "a", 1, "x", OK), under(Release, 90, 95, "a", 1, OK), showsFree(96, 97, 1, "a", EndReleased), granted(98, 99, "b", 7, "x")},
		"expiry at the very moment":   {granted(0, 10, "a", 1, ""), granted(20, 100, "b", 2, "")},
		"expiry seen late":            {granted(0, 10, "a", 1, ""), showsHeld(500, 510, 1, "a"), under(Renew, 600, 610, "a", 1, OK)},
		"expired, not yet recorded":   {granted(0, 10, "a", 1, ""), under(Renew, 101, 102, "a", 1, Expired), showsHeld(103, 104, 1, "a"), showsFree(105, 106, 1, "a", EndExpired)},
		"overlapping calls":           {granted(0, 50, "a", 1, ""), refused(0, 50, "b", 1, "a"), showsNothing(0, 50), showsHeld(0, 50, 1, "a")},
		"lost grant that was made":    {lost(0, 10, "a"), refused(20, 30, "b", 3, "a"), granted(120, 130, "c", 4, "")},
		"lost grant that was not":     {lost(0, 10, "a"), granted(20, 30, "b", 1, "")},
		"lost grant made much later":  {lost(0, 10, "a"), granted(20, 30, "b", 1, ""), under(Release, 40, 50, "b", 1, OK), showsHeld(60, 70, 2, "a")},
		"lost grant seen when over":   {lost(0, 10, "a"), showsFree(120, 130, 1, "a", EndExpired)},
		"lost release, done":          {granted(0, 10, "a", 1, ""), under(Release, 20, 30, "a", 1, Unknown), granted(40, 50, "b", 2, "")},
		"lost release, done later":    {granted(0, 10, "a", 1, ""), under(Release, 20, 30, "a", 1, Unknown), showsHeld(40, 50, 1, "a"), granted(60, 70, "b", 2, "")},
		"lost release, not done":      {granted(0, 10, "a", 1, ""), under(Release, 20, 30, "a", 1, Unknown), showsFree(150, 160, 1, "a", EndExpired)},
		"lost release, never looked":  {granted(0, 10, "a", 1, ""), under(Release, 20, 30, "a", 1, Unknown), showsHeld(40, 50, 1, "a")},
		"lost release of an old one":  {granted(0, 10, "a", 1, ""), granted(150, 160, "b", 2, ""), under(Release, 170, 180, "a", 1, Unknown), showsHeld(190, 200, 2, "b")},
		"lost renewal":                {granted(0, 10, "a", 1, ""), under(Renew, 90, 95, "a", 1, Unknown), granted(101, 102, "b", 2, "")},
		"lost checkpoint, done":       {granted(0, 10, "a", 1, ""), stored(20, 30, "a", 1, "x", Unknown), granted(101, 102, "b", 2, "x")},
		"lost checkpoint, not done":   {granted(0, 10, "a", 1, ""), stored(20, 30, "a", 1, "x", Unknown), granted(101, 102, "b", 2, "")},
		"lost checkpoint, done later": {granted(0, 10, "a", 1, ""), stored(20, 30, "a", 1, "x", Unknown), stored(40, 50, "a", 1, "y", OK), granted(101, 102, "b", 2, "x")},
		"refused":                     {granted(0, 10, "a", 1, ""), under(Release, 20, 30, "a", 1, Refused), showsHeld(40, 50, 1, "a")},
		"old tokens":                  {granted(0, 10, "a", 1, ""), granted(150, 160, "b", 2, ""), under(Renew, 170, 180, "a", 1, NotHolder), under(Release, 190, 200, "a", 1, Expired)},
	} {
		if err := Check(ops, time.Minute); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnswersThatNobodyMayGive(t *testing.T) {
	op := span(Op{Kind: Get, Outcome: Absurd, Detail: "INTERNAL"}, 0, 1)
	if err := Check([]Op{op}, time.Minute); err == nil || !strings.Contains(err.Error(), "INTERNAL") {
		t.Error(err)
	}
}

// Resources have nothing to do with each other.
func TestResourcesAreJudgedApart(t *testing.T) {
	other := granted(0, 10, "b", 1, "")
	other.Resource = "other"
	if err := Check([]Op{granted(0, 10, "a", 1, ""), other}, time.Minute); err != nil {
		t.Error(err)
	}
	bad := granted(20, 30, "c", 2, "")
	bad.Resource = "other"
	var violation *Violation
	if err := Check([]Op{granted(0, 10, "a", 1, ""), other, bad}, time.Minute); !errors.As(err, &violation) || violation.Resource != "other" {
		t.Error(err)
	}
}

func TestUndecidedHidesNothing(t *testing.T) {
	for name, row := range map[string]struct {
		of   map[string]error
		want error
	}{
		"all are sound":            {nil, nil},
		"one is not decided":       {map[string]error{"b": ErrUndecided}, ErrUndecided},
		"another is not sound":     {map[string]error{"a": ErrUndecided, "b": &Violation{}}, &Violation{}},
		"one before was not sound": {map[string]error{"a": &Violation{}, "b": ErrUndecided}, &Violation{}},
	} {
		got := each([]string{"a", "b", "c"}, func(name string) error { return row.of[name] })
		if fmt.Sprintf("%T", got) != fmt.Sprintf("%T", row.want) {
			t.Errorf("%s: %v, want %T", name, got, row.want)
		}
	}
}

func TestUndecidedIsNotOK(t *testing.T) {
	ops := []Op{granted(0, 10, "a", 1, "")}
	for range 5000 {
		ops = append(ops, showsHeld(0, 10, 1, "a"))
	}
	if err := Check(ops, time.Nanosecond); !errors.Is(err, ErrUndecided) {
		t.Errorf("a judgement without time: %v", err)
	}
}

func TestOutcomeOf(t *testing.T) {
	failed := func(r lease.Reason) error { return lease.Errorf(r, "x").GRPCStatus().Err() }
	for _, row := range []struct {
		kind Kind
		err  error
		want Outcome
	}{
		{Acquire, nil, OK},
		{Acquire, failed(lease.ReasonHeld), Held},
		{Acquire, failed(lease.ReasonExpired), Unknown},
		{Acquire, failed(lease.ReasonNotHolder), Absurd},
		{Renew, failed(lease.ReasonHeld), Absurd},
		{Renew, failed(lease.ReasonExpired), Expired},
		{Release, failed(lease.ReasonReleased), Released},
		{Checkpoint, failed(lease.ReasonNotHolder), NotHolder},
		{Get, failed(lease.ReasonNotFound), NotFound},
		{Get, failed(lease.ReasonExpired), Absurd},
		{Get, failed(lease.ReasonInternal), Absurd},
		{Acquire, failed(lease.ReasonInvalid), Absurd},
		{Acquire, failed(lease.ReasonNoQuorum), Refused},
		{Renew, failed(lease.ReasonNotCoordinator), Refused},
		{Renew, failed(lease.ReasonRecovering), Refused},
		{Renew, failed(lease.ReasonUnknownOutcome), Unknown},
		{Renew, status.Error(codes.Unavailable, "connection refused"), Unknown},
		{Renew, status.Error(codes.DeadlineExceeded, ""), Unknown},
		{Renew, context.Canceled, Unknown},
	} {
		if got := OutcomeOf(row.kind, row.err); got != row.want {
			t.Errorf("%v, %v: got %v, want %v", row.kind, row.err, got, row.want)
		}
	}
}
