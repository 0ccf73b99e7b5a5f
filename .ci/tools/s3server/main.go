// Command s3server is a versitygw over a directory, listening on a unix socket. Tests run it: one directory, one process,
// nothing kept that the directory does not hold.
//
// It prints "ready" once it listens, and stops at SIGTERM and when its standard input ends, so that it does not outlive the
// test that started it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "s3server:", err)
		os.Exit(1)
	}
}

func run() error {
	dir := flag.String("dir", "", "directory that holds the buckets, one directory each; needs extended attributes")
	socket := flag.String("socket", "", "unix socket to listen on")
	access := flag.String("access", "test", "access key id")
	secret := flag.String("secret", "test-secret", "secret access key")
	lockFile := flag.Bool("lock-file", true, "share locks with other processes over the same directory")
	flag.Parse()
	if *dir == "" || *socket == "" {
		return errors.New("both -dir and -socket are needed")
	}
	if err := (meta.XattrMeta{}).Test(*dir); err != nil {
		return fmt.Errorf("%s has no extended attributes: %w", *dir, err)
	}
	backend, err := posix.New(*dir, meta.XattrMeta{}, posix.PosixOpts{ForceNoObjLockFile: !*lockFile})
	if err != nil {
		return err
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	go announce(ctx, *socket)
	return embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
		RootUserAccess: *access, RootUserSecret: *secret,
		Ports:          []string{*socket},
		MaxConnections: 256, MaxRequests: 256, MultipartMaxParts: 10000,
		KeepAlive: true, Quiet: true,
	})
}

// announce tells when the socket answers. The gateway itself has no such event.
func announce(ctx context.Context, socket string) {
	for ctx.Err() == nil {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close()
			fmt.Println("ready")
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
