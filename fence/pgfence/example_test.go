package pgfence_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
)

// A holder writes under the token of its grant. Whoever has been overtaken is told so by the database.
func ExamplePool_Run() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "host=db dbname=shop user=app")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	fenced, err := pgfence.NewPool(pool, pgfence.Config{})
	if err != nil {
		log.Fatal(err)
	}
	token, err := fence.ParseToken("4.7") // from the grant
	if err != nil {
		log.Fatal(err)
	}
	err = fenced.Run(ctx, fence.Write{Resource: "orders-db", Token: token}, pgx.TxOptions{}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE orders SET paid = true WHERE id = $1", 42)
		return err
	})
	var stale *fence.StaleError
	switch {
	case errors.As(err, &stale):
		fmt.Println("somebody else has taken over under", stale.Floor)
	case err != nil:
		log.Fatal(err)
	}
}

// Before a new holder writes, the fence is raised to its token. The answer is the proof that nobody older still can.
func ExampleBump() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "host=db dbname=shop user=guard")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	token, err := fence.ParseToken("4.8")
	if err != nil {
		log.Fatal(err)
	}
	done, err := pgfence.Bump(ctx, pool, pgfence.Config{}, "orders-db", token)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("fenced:", done.Proof)
}
