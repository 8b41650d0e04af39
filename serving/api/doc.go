// Package api is the HTTP endpoint: read-only SQL, typed queries of views, and the state of the
// pipeline. It knows ClickHouse only through the small interfaces in source.go.
//
// # Routes
//
//	POST /v1/sql            read-only SQL as text/plain, or {"sql", "parameters", "limits"} as JSON
//	GET  /v1/views          the views: dimensions, measures, definition, plan, coverage
//	GET  /v1/views/{view}   a typed query: see Query parameters
//	GET  /v1/views/{view}/tail  groups that change, as server-sent events: see Tails
//	GET  /v1/builds         the builds that are kept, and which of them is live
//	GET  /v1/status         live build, positions and lag, log, history, workers, dead letters
//	GET  /v1/dlq            dead letters: events that did not fit their schema (type, reason, since, until, limit)
//	GET  /v1/dlq/{id}       one of them, with its bytes
//	POST /v1/dlq/replay     publish them again, once: {"type", "reason", "since", "until", "ids", "limit"} or {"all": true}
//	POST /v1/dlq/drop       remove them for good, likewise
//	POST /v1/events/{type}  publish events: see Events
//	GET  /metrics           the status, and what the loops of this process count, for Prometheus
//	GET  /livez, /readyz    the process answers; everything that it needs answers
//	GET  /openapi.json      this interface as OpenAPI 3.1
//
// # Query parameters of a typed query
//
//	dimensions=hour,origin   what to group by; default all; empty: none, one row in all
//	measures=flights,delay   what to measure; default all
//	grain=1d                 a coarser bucket for the view's time dimension: a multiple of its width
//	from=, to=               RFC 3339 or a date: groups whose bucket starts in [from, to)
//	filter=origin:JFK        keep groups of that value, taken as it stands after the first colon; repeated
//	                         for one dimension: any of the values; for several: all of the conditions
//	null=distance            also keep (or, with no filter, only keep) groups that have no value there
//	order=-flights,hour      a minus sign: descending; the other dimensions follow, so that order is total
//	limit=100                at most so many rows
//
// The time dimension is the view's first time bucket, or else its first timestamp or date. Buckets are
// counted from 1970-01-01T00:00:00Z, those of a grain too: weeks begin on Thursdays. Every typed query
// rolls up states out of <view>_states and finishes them once. Values travel as ClickHouse's query
// parameters, and identifiers come out of the plan alone, so no text of a request becomes SQL.
//
// # Answers
//
// Formats are those of ClickHouse, chosen by format= or Accept: json (FORMAT JSON and a last key,
// "watershed"), csv (CSVWithNames), ndjson (JSONEachRow). Limits are timeout= in seconds and rows=.
//
// Every answer to a query says what it saw: Watershed-Build and Watershed-Cut are those of the live
// build that ClickHouse used. It reads them while it analyses a query, so they are read here before the query
// and again once ClickHouse has begun to answer; if there was a flip in between, the query is run again. What
// flips later cannot reach an answer that has begun. Watershed-Position is "shard:sequence": the answer saw the
// log at least that far, by every plan that it read (a typed query) or that there is (SQL).
//
// The first 256 KiB of an answer are held back, and an error up to there is a problem (below). The rest is
// streamed. If the query fails then, the connection is aborted without the last chunk: an HTTP client
// reports a broken transfer, and what it received must not be used. A client that goes away has its query
// killed. The timeout covers the transfer too.
//
// # Events
//
// POST /v1/events/{type} takes events in: application/x-ndjson (so too without a Content-Type), application/json (an
// event, or an array of them), CloudEvents 1.0 (application/cloudevents+json, -batch+json, or ce- headers) and Arrow streams
// (application/vnd.apache.arrow.stream, columns by the fields' names; up to 16 MiB as lines of JSON, too), each also with
// Content-Encoding gzip or zstd; 8 MiB as they are sent and 16 MiB unpacked. 202 comes when the log has acknowledged
// them, with {"accepted", "rejected", "position"} and the position as Watershed-Position, which a query takes as
// Watershed-Min-Position.
//
// If a row does not fit its type, nothing is published, and "rows" in the problem says which and why (the first 100;
// rows count from 0, blank lines do not count), "rejected" how many; with partial=true the others are published all the
// same. Rows are held against the definitions of the last cut and this machine's clock. The log's timestamp decides
// later, so an event at the very edge of the range of times may still become a dead letter.
//
// After any answer but 202 and 4xx, or none, send the request again: events that are equal by type, id and date count
// once. Under an Idempotency-Key not even the log has them twice, if the second request comes within two minutes. A request
// of more than 512 KiB becomes several messages; if the log refuses some of them, others stay, and the answer is an error.
// Requests without a key share messages, for which none waits longer than 5 ms.
//
// # Positions to wait for
//
// A query may name a position of the log that its answer must show, such as the one that a write of the same
// client was acknowledged with: min_position=1234, or the header Watershed-Min-Position (0:1234 is the same). It waits
// until every view that it reads shows the log up to there, for max_wait seconds (5) and not beyond its timeout,
// and is not-reached then. A typed query reads its view. SQL may read any view in ways that its text does not
// show, so it waits for all that the live build covers: also for one that ClickHouse refuses or the log was trimmed past.
//
// A view shows the log up to the greatest of three positions: that of its slices in the live build, that of its last
// flush, and the one that was stored since without new states. None goes back as long as the same flip is live: what was
// read before the query holds for it if the flip is the same once ClickHouse has analysed it; if not, it is all done
// again. A view's definition changes with a flip alone. After a repair that began the log anew, a position of the old log
// says nothing of events that were saved into the new one.
//
// Of all requests that wait, one looks (one query for all views), after a hint of the worker over NATS that it has
// stored something, or every 100 ms (watch.go).
//
// # Tails
//
// GET /v1/views/{view}/tail sends groups that change, as server-sent events: {"dimensions", "measures", "position"}, with the
// values that the view shows when it looks, which is every 500 ms (every=, 100ms to 60s) if something was stored.
// Changes in between are one event, and a group may be sent again without having changed. The view showed the
// log up to position, or further. from, to, filter and null are those of typed queries. Of more than 1,000 groups at once
// (groups=), those that changed last are sent, and then an event "more" with how many are left out.
//
// Each look ends with an id, "sequence.flip": as Last-Event-ID it goes on there, and all that changed since is sent. Without
// one, a tail begins where the view stands. Who opens the tail first and then queries the view misses nothing.
// An event "build" says that another build is live: any group may be another then, so query the view again. An event
// "problem", with a problem as its data, is the last: open the tail again. A comment comes every 15 seconds.
//
// Tails of one view with the same parameters share their looks; a client that goes away ends its own (feed.go).
//
// # Problems
//
// Errors are RFC 9457 problem+json. "code" is stable, "type" is "urn:watershed:problem:" and the code,
// "detail" is for people. "parameter" names a parameter at fault, "clickhouse" is ClickHouse's own error code.
//
//	code                    status  when
//	bad-parameter           400     a parameter is unknown, malformed or out of range
//	bad-request             400     the body is empty or not the JSON that is wanted
//	sql-error               400     ClickHouse refuses the query: syntax, unknown names, types, arithmetic
//	unauthorized            401     there are tokens, and the request carries none of them
//	forbidden               403     the reader may not do this; or another site's page asked, through a browser
//	not-found               404     no such path
//	view-not-found          404     no such view
//	type-not-found          404     no such event type
//	method-not-allowed      405     not by this method
//	not-acceptable          406     no format that Accept allows
//	not-covered             409     the live build does not cover the view yet: wait for the next batch
//	body-too-large          413     more than 1 MiB of SQL, 8 MiB of events, or 16 MiB of them unpacked
//	unsupported-media-type  415     the body is of another kind than is read here
//	wrong-host              421     on loopback: the Host header names another machine (DNS rebinding)
//	limit-exceeded          422     too many rows, or too much memory, for the limits in force
//	events-refused          422     events do not fit their type; none was published
//	busy                    429     ClickHouse has no place for another query, the quota is used up, too many tails are open, or too many events wait for the log
//	internal                500     a bug here; the log says more
//	build-changed           503     flips came faster than the query could be analysed
//	unavailable             503     ClickHouse or the log does not answer, or ClickHouse cannot read a table
//	log-full                503     the log has no room for events
//	timeout                 504     not done within the time limit
//	not-reached             504     the views have not reached min_position in time: "lagging" says which, and why
//
// # Security
//
// Publishing is a right of its own: tokens that read do not publish, and those that publish do not read. Where there are
// tokens and none of them publishes, nobody does.
//
// Without tokens, only loopback is listened on. There a Host header that names anything else is refused, and
// so are requests of other sites' pages; no CORS header is ever sent. What SQL may do is decided by ClickHouse
// alone: the user behind Reader has readonly=1, SELECT on one database, constraints and a quota.
package api
