#!/bin/bash
# Takes longer than it may on purpose (run by ../check.sh).
# lab: timeout=12
on primary sleep 1000
