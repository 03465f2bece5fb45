"""HTTP over the runtime: pictures as jobs, people as encrypted identities, a page to try it."""
