// Package intake brings customer files into the store. A file is read twice. The first
// pass finds out what its columns are, types every value, looks for rows about the same
// customer or number, and writes no customer; what it finds decides whether the file is
// loaded at all. The second pass writes customers in batches, each with the place in the
// file that it reaches in one transaction, so that an import which is killed at any moment
// goes on exactly where it was.
//
// Both passes need constant memory, whatever the size of the file.
package intake
