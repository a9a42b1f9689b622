// What the bundler's target wrappers call: without LLVM there are no targets to initialise.
#pragma once
#include <llvm-c/Core.h>
#ifdef __cplusplus
extern "C" {
#endif
static inline void LLVMInitializeAllTargetInfos(void) {}
static inline void LLVMInitializeAllTargets(void) {}
static inline void LLVMInitializeAllTargetMCs(void) {}
static inline void LLVMInitializeAllAsmPrinters(void) {}
static inline void LLVMInitializeAllAsmParsers(void) {}
static inline void LLVMInitializeAllDisassemblers(void) {}
static inline LLVMBool LLVMInitializeNativeTarget(void) { return 1; }
static inline LLVMBool LLVMInitializeNativeAsmParser(void) { return 1; }
static inline LLVMBool LLVMInitializeNativeAsmPrinter(void) { return 1; }
static inline LLVMBool LLVMInitializeNativeDisassembler(void) { return 1; }
#ifdef __cplusplus
}
#endif
