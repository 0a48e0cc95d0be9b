// Package e2e holds the end-to-end tests and the fault suite: the built program,
// a devnet, real redis-servers, browsers and proxies, each in a process of its
// own, and clients that are held against what the devnet recorded. It has no
// code but tests.
package e2e
