package ingest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/semaphore"
)

const (
	requestBytes = 16 << 10 // what a request takes beside its body
	gzipBytes    = 64 << 10 // what unpacking takes
	zstdBytes    = 256 << 10
	firstBuffer  = 16 << 10
	bodyCost     = 2       // bytes of memory for one of the body: it, and the messages that it becomes
	spare        = 2       // bytes behind a body: the end of its last line, and one to see that nothing follows
	maxWindow    = 8 << 20 // the largest window that RFC 8878 asks a decoder to support
)

// A hold is the memory that one request has. It is used by one goroutine.
type hold struct {
	of *semaphore.Weighted
	n  int64
}

// grow takes n bytes more, or none.
func (h *hold) grow(n int64) error {
	if !h.of.TryAcquire(n) {
		return ErrBusy
	}
	h.n += n
	return nil
}

func (h *hold) release() { h.of.Release(h.n) }

// read returns the body, unpacked, with room for one byte behind it. Whatever it claims or unpacks into, no
// more memory is taken than is held.
func (in *Ingest) read(r *Request, held *hold) ([]byte, error) {
	if r.Length > in.cfg.MaxWire {
		return nil, &TooLargeError{Limit: in.cfg.MaxWire}
	}
	if err := held.grow(requestBytes); err != nil {
		return nil, err
	}
	wire := &limited{from: r.Body, left: in.cfg.MaxWire, TooLargeError: TooLargeError{Limit: in.cfg.MaxWire}}
	first := int64(firstBuffer)
	var from io.Reader = wire
	switch encoding := strings.ToLower(strings.TrimSpace(r.Header("Content-Encoding"))); encoding {
	case "", "identity":
		if r.Length >= 0 {
			first = r.Length + spare
		}
	case "gzip", "x-gzip":
		if err := held.grow(gzipBytes); err != nil {
			return nil, err
		}
		z, err := gzip.NewReader(wire)
		if err != nil {
			return nil, badBody(err)
		}
		defer z.Close()
		from = z
	case "zstd":
		z, err := unzstd(wire, held)
		if err != nil {
			return nil, badBody(err)
		}
		defer z.Close()
		from = z
	default:
		return nil, &MediaTypeError{fmt.Errorf("Content-Encoding %q: want gzip, zstd or none", encoding)}
	}
	body, err := in.fill(from, first, held)
	if err != nil {
		return nil, badBody(err)
	}
	return body, nil
}

// unzstd unpacks a stream whose first frame says how large a window it needs; later frames may need no larger one.
func unzstd(wire io.Reader, held *hold) (*zstd.Decoder, error) {
	buffered := bufio.NewReaderSize(wire, firstBuffer)
	begin, err := buffered.Peek(zstd.HeaderMaxSize)
	if err != nil && err != io.EOF {
		return nil, err
	}
	var header zstd.Header
	if err := header.Decode(begin); err != nil {
		return nil, err
	}
	window := header.WindowSize
	if header.SingleSegment {
		window = header.FrameContentSize // which is the window then
	}
	if window > maxWindow {
		return nil, fmt.Errorf("its window is %d bytes; at most %d are allowed", window, maxWindow)
	}
	window = max(window, 128<<10)
	if err := held.grow(zstdBytes + 2*int64(window)); err != nil {
		return nil, err
	}
	return zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
}

// fill reads all of a stream, and keeps a byte free behind it.
func (in *Ingest) fill(from io.Reader, first int64, held *hold) ([]byte, error) {
	from = &limited{from: from, left: in.cfg.MaxBody, TooLargeError: TooLargeError{Limit: in.cfg.MaxBody, Unpacked: true}}
	most := in.cfg.MaxBody + spare
	first = min(first, most)
	if err := held.grow(bodyCost * first); err != nil {
		return nil, err
	}
	buf := make([]byte, 0, first)
	for {
		n, err := from.Read(buf[len(buf) : cap(buf)-1])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
		if len(buf) == cap(buf)-1 {
			more := min(2*int64(cap(buf)), most) - int64(cap(buf))
			if err := held.grow(bodyCost * more); err != nil {
				return nil, err
			}
			buf = append(make([]byte, 0, int64(cap(buf))+more), buf...)
		}
	}
}

// badBody says that a body cannot be read, unless the error has a meaning of its own.
func badBody(err error) error {
	var large *TooLargeError
	if errors.As(err, &large) {
		return large
	}
	if errors.Is(err, ErrBusy) {
		return ErrBusy
	}
	return &BodyError{fmt.Errorf("the body cannot be read: %w", err)}
}

// limited is a stream that ends with its error beyond its limit.
type limited struct {
	from io.Reader
	left int64
	TooLargeError
}

func (l *limited) Read(p []byte) (int, error) {
	// One byte more is asked for than may come, so that a body of just the limit is not refused.
	n, err := l.from.Read(p[:min(int64(len(p)), l.left+1)])
	if l.left -= int64(n); l.left < 0 {
		return 0, &l.TooLargeError
	}
	return n, err
}
