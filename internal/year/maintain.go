package main

import "context"

// maintain does what keeps history small, as the nightly job's machine would.
func (w *world) maintain(context.Context) error { return nil }
