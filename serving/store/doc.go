// Package store keeps what is served in ClickHouse: the tables of plans, the merged views over
// them, the builds, and the fences that keep writers of older terms out.
//
// Blocks are complete before their insert is opened. All are inserted over connections of our own
// (wire.go): Arrow's memory is sent as it is, in the tables' own types, which the driver that asks
// the questions cannot do with aggregate states.
//
// # Tables
//
// Every system table also has the writer's term and the time of the insert.
//
//	table      row                                      order key             engine                     fsync
//	terms      a role's new term                        role, shard, term     MergeTree                  yes
//	positions  how far a plan's speed states reach      plan, shard           ReplacingMergeTree(seq)    yes
//	begins     from where on they are complete          plan, shard           ReplacingMergeTree(epoch)  yes
//	slices     a finished slice under its key           plan, slice           MergeTree                  yes
//	condemned  a slice that must not be used again      plan, slice           MergeTree                  no
//	builds     a slice of a build, and the cut that     plan, date, slice     MergeTree, a partition     yes
//	           its plan stands at; slice 0: the plan                          per build
//	           is covered; no plan: the build itself
//	live       a flip: the newest says what is shown    flip                  MergeTree                  yes
//	audits     what an audit of a plan found            build, plan           MergeTree                  no
//
// A plan, of view V with a hash that begins with H, has
//
//	V__H__batch  states of slices   dimensions  AggregatingMergeTree, a partition per parcel           yes
//	V__H__speed  states of epochs   dimensions  AggregatingMergeTree, a partition per (epoch, shard)   yes
//
// and a view has the merged views V (finished values) and V_states (states, to roll up further).
// Columns of ours begin with an underscore there, where fields cannot.
//
// positions also holds the epoch of a plan's newest beginning once more, under its hash and "/begins".
//
// fsync means fsync_after_insert and fsync_part_directory: what was acknowledged survives a power
// cut. Config.NoFsync turns it off. What is not fsynced is looked at before it is relied on: a
// slice has its rows counted, and is computed again if they are short.
//
// # Fences
//
// Each fenced table T is written through T_in, which keeps nothing, and the materialized view
// T_fence, which moves a block on to T and throws if its term is older than the newest in terms.
// (Of plans' tables they are T_into and T_into_fence: the names change with the columns, since a
// writer of another version must never find a staging table whose fence is not made yet.)
// The newest term is looked up when the block arrives. So once TakeOver has inserted a term and
// seen the end of every query of older ones, none of those can write any more.
//
// # Invariants
//
//   - A flush of the speed layer is one block in one partition: it is there whole or not at all,
//     with the position that it reaches.
//   - A build's rows do not change once it was live. A slice's rows do not change once it was
//     registered, until it is dropped; an id is never used twice.
//   - The row with the highest flip in live decides what every merged view shows.
package store
