package fence_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/writ-io/writ/fence"
)

func ExampleToken() {
	token, err := fence.NewToken(4, 7)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token, token.Decimal())
	next, err := token.Next()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(next, next > token)
	// Output:
	// 4.7 1125899906842631
	// 4.8 true
}

func ExampleParseToken() {
	for _, text := range []string{"4.7", "1125899906842631", "007"} {
		token, err := fence.ParseToken(text)
		fmt.Println(token, err)
	}
	// Output:
	// 4.7 <nil>
	// 4.7 <nil>
	// 0.0 fence: invalid token: token "007": use a decimal integer or epoch.sequence, as it was granted
}

func ExampleToken_MarshalJSON() {
	token, err := fence.ParseToken("4.7")
	if err != nil {
		log.Fatal(err)
	}
	text, err := json.Marshal(map[string]fence.Token{"token": token})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(text))
	// Output: {"token":"1125899906842631"}
}

// A node signs a grant; a guard that knows only the public keys verifies it.
func ExampleKeySet_Verify() {
	signer, err := fence.GenerateSigner()
	if err != nil {
		log.Fatal(err)
	}
	token, err := fence.NewToken(4, 7)
	if err != nil {
		log.Fatal(err)
	}
	compact, err := signer.Sign(fence.Writ{
		Issuer: "prod", Resource: "billing/nightly", Holder: "cron/eu-1", Region: "eu",
		Token: token, IssuedAt: time.Now(), RequestID: "r-1",
	})
	if err != nil {
		log.Fatal(err)
	}

	keys, err := fence.NewKeySet(signer.Public())
	if err != nil {
		log.Fatal(err)
	}
	writ, err := keys.Verify(compact)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(writ.Holder, writ.Token, writ.Require(fence.Expected{Issuer: "prod", Resource: "billing/nightly"}))
	fmt.Println(errors.Is(writ.Require(fence.Expected{Resource: "orders-db"}), fence.ErrInvalidWrit))
	// Output:
	// cron/eu-1 4.7 <nil>
	// true
}

func ExampleKeyRing() {
	signer, err := fence.GenerateSigner()
	if err != nil {
		log.Fatal(err)
	}
	ring, err := fence.NewKeyRing(signer, fence.KeySet{})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := ring.Stage(); err != nil {
		log.Fatal(err)
	}
	// Publish ring.Keys().MarshalJWKS() and wait until every guard has it.
	old, err := ring.Rotate()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ring.Keys().Len(), ring.Keys().Has(old))
	// Once none of the old key's writs is needed any more:
	if err := ring.Remove(old); err != nil {
		log.Fatal(err)
	}
	fmt.Println(ring.Keys().Len(), ring.Keys().Has(old))
	// Output:
	// 2 true
	// 1 false
}
