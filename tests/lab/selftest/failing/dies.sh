#!/bin/bash
# A host whose kernel panics. Must fail, and say why the host died.
on primary bash -c 'echo c > /proc/sysrq-trigger'
