// Package crash names the places at which a process may die, so that tests can make it die there.
//
// Code that writes calls At between the steps of a protocol. In a normal build At is empty and costs
// nothing. Built with the tag "crash", it kills its process by SIGKILL at the first of the places that it
// comes by of those that the environment variable WATERSHED_CRASH names, with commas between them: "place",
// or "place#n" for the n-th time. It says "crash: place" on standard error. `make faults` dies at each once.
package crash

// Places are all names that At is called with; a test holds the list against the source. They are
// <package>.<what is done>, and mean: the step has just been taken, the next has not.
var Places = [...]string{
	"history.aside",
	"history.begun",
	"history.buffered",
	"history.checkpoint",
	"history.committed",
	"history.cut",
	"history.cut-old",
	"history.file",
	"history.files",
	"history.level",
	"history.rejected",
	"history.vacuum-removed",
	"history.widened",
	"eventlog.anew-aside",
	"eventlog.anew-marked",
	"eventlog.anew-copied",
	"eventlog.anew-emptied",
	"eventlog.anew-cut",
	"eventlog.anew-open",
	"eventlog.anew-republished",
	"eventlog.anew-done",
	"eventlog.cut-acknowledged",
	"eventlog.cut-counted",
	"eventlog.cut-numbered",
	"eventlog.deadletter-acknowledged",
	"eventlog.deadletter-removed",
	"eventlog.deadletter-replayed",
	"eventlog.publish-acknowledged",
	"eventlog.publisher-sent",
	"eventlog.trim-decided",
	"eventlog.trimmed",
	"speed.begun",
	"speed.detached",
	"speed.epoch-begun",
	"speed.epoch-flushed",
	"speed.epoch-saved",
	"speed.flushed",
	"speed.idle-saved",
	"speed.joined",
	"speed.rescue-begun",
	"speed.rescued",
	"speed.resumed",
	"speed.states-inserted",
	"speed.tables-made",
	"speed.taken-over",
	"speed.term-taken",
	"speed.views-published",
}
