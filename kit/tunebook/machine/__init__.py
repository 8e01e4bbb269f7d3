"""The platform, the disk, the network and signals; the only wing that knows one platform from another.

Requests come in (a file to write whole, work not to be torn, a bar to show), the machine's answer goes out. A
difference between Linux and macOS, or between CPU, Metal and CUDA, belongs here.

Doors: `atomic`, `blas`, `doctor`, `entries`, `gpu_errors`, `gpu_facts`, `hub`, `inert`, `interrupts`, `pictures`,
`private`, `progress_bars`, `runtime`, `scratch`, `sealed`, `without_torch`, `working`.
"""
