#!/bin/bash
# Fails in its third step on purpose (run by ../check.sh).
step one
on primary true
step two
on backup sh -c 'echo saying something; exit 9'
step three
