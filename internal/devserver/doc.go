// Package devserver runs the two engines that Watershed needs, for one machine: a NATS server inside
// this process and a ClickHouse as a child process.
//
// Both are the real ones. They listen on the loopback interface alone, keep everything under one
// directory each, and may be killed at any time: what they acknowledged survives the death of the
// process (and a power cut as far as their own settings say). A directory is locked while an engine
// runs on it, so that a second one is refused instead of damaging it.
//
// ClickHouse comes as the library libchdb, which npm installs (see engine/package.json). It must not
// share our address space, so the child is our own executable started once more: every main, and every
// TestMain of a package that starts ClickHouse, calls Child before anything else.
package devserver
