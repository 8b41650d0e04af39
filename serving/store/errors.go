package store

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// An Error is what a statement failed with: what ClickHouse answered, or that it did not
// answer.
type Error struct {
	code    int    // ClickHouse's; 0 when it did not answer
	message string // ClickHouse's, without its decoration
	sent    bool   // the statement, or the rows of an insert, may have reached ClickHouse
	cause   error  // of not having an answer
}

// codeThrowIf is FUNCTION_THROW_IF_VALUE_IS_NON_ZERO: the exception of fences and of merged
// views that the live build does not cover.
const codeThrowIf = 395

// codeNull is CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN.
const codeNull = 349

// unfit is the error of states that do not fit their table, which shows before they are sent. It
// is what ClickHouse would say of them.
func unfit(err error) error {
	if err == nil {
		return nil
	}
	return &Error{code: codeNull, message: err.Error()}
}

// refusal lists exceptions that mean that the data, or the statement, do not fit the table, and
// that are raised before anything can have been written: the same would be refused again. What
// may pass (a missing table, no place for another query) is not among them. The numbers are
// ClickHouse's and never change.
func refusal(code int) bool {
	switch code {
	case 6, 16, 27, 33, 36, 43, 47, 53, 62, 117, 246, codeNull, codeThrowIf:
		return true
	}
	return false
}

// damage lists exceptions that reading a damaged part of a table ends in: files that are too short, that do
// not fit their checksums, or that are gone. Each has other causes too, so the message must name a part.
func damage(code int) bool {
	switch code {
	case 3, 27, 32, 33, 40, 49, 74, 76, 107, 117, 128, 131, 226, 228, 246, 271, 432, 740, 1001:
		return true
	}
	return false
}

// inPart is what ClickHouse adds to such a message when it was reading a part: the table's full name. Of a
// file that is gone it may say the path alone, which has the table's UUID.
var inPart = regexp.MustCompile(`\(while reading from part \S+ in table |/store/[0-9a-f]{3}/[0-9a-f]{8}-[0-9a-f-]{27}/`)

// isDamaged reports whether an error is about a table that ClickHouse cannot read any more.
func isDamaged(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Damaged()
}

// howToHeal follows the message of such an error.
const howToHeal = ": what ClickHouse has stored is damaged. It only caches history and log: run `watershed repair`, which drops that table, and it is computed again"

// fenceMark begins the message of every fence.
const fenceMark = "fenced: "

func (e *Error) Error() string {
	if e.code == 0 {
		return fmt.Sprintf("ClickHouse did not answer: %v", e.cause)
	}
	return fmt.Sprintf("ClickHouse: %s (code %d)", e.Message(), e.code)
}

// Damaged reports that ClickHouse cannot read a part of a table: it never will, until the table is renewed.
func (e *Error) Damaged() bool { return damage(e.code) && inPart.MatchString(e.message) }

// Unwrap is why there was no answer, if there was none.
func (e *Error) Unwrap() error { return e.cause }

// Code is ClickHouse's number of the exception, 0 when it did not answer.
func (e *Error) Code() int { return e.code }

// Message is ClickHouse's message, and what heals a table that it cannot read.
func (e *Error) Message() string {
	if e.Damaged() {
		return e.message + howToHeal
	}
	return e.message
}

// Fenced reports that the write's term is not its role's newest. Nothing was written.
func (e *Error) Fenced() bool {
	return e.code == codeThrowIf && strings.HasPrefix(e.message, fenceMark)
}

// Refused reports that a write was certainly not carried out: it was not sent, and ClickHouse
// did not answer (then Code is 0), or ClickHouse does not take it, however often it is sent.
func (e *Error) Refused() bool {
	if e.code != 0 { // a damaged table is not the statement's fault
		return refusal(e.code) && !e.Damaged()
	}
	return !e.sent
}

// Unknown reports that a write may have been carried out, or may yet be: the writer must
// take a new term before it looks.
func (e *Error) Unknown() bool { return !e.Refused() }

// An unsupportedError is about a result that the driver cannot receive.
type unsupportedError struct{ cause error }

func (e *unsupportedError) Error() string {
	return fmt.Sprintf("a column of the result cannot be sent: %v: finish the state, or cast it to String", e.cause)
}
func (e *unsupportedError) Unwrap() error { return e.cause }

// Unsupported reports true: the query is at fault, and not ClickHouse.
func (e *unsupportedError) Unsupported() bool { return true }

// plainMessage takes off what ClickHouse puts around a message. That of throwIf is ours, and
// the expression around it says nothing more.
func plainMessage(code int, text string) string {
	text = strings.TrimPrefix(strings.TrimSpace(text), "DB::Exception: ")
	if code == codeThrowIf {
		text, _, _ = strings.Cut(text, ": while executing '")
		text, _, _ = strings.Cut(text, ": In scope ")
		text, _, _ = strings.Cut(text, ": while pushing to view ")
	}
	return strings.TrimSuffix(text, ".")
}
