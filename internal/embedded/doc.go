// Package embedded runs the two engines that Muster stands on, PostgreSQL and
// Temporal, as child processes on one machine. `muster up` uses it; a
// production installation brings its own servers instead.
//
// Everything lives in one [Folder], which one process at a time may hold.
// Whatever is killed, the next start finds the data as they were: PostgreSQL
// runs with its durable settings, Temporal keeps its state in PostgreSQL, and
// processes left over from a killed run are recognised and stopped first.
// No database is ever deleted.
//
// Errors that a person can solve are of type [Problem].
package embedded
