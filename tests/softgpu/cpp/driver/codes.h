// The driver's codes and flags, by the numbers of cuda.h; only those this device answers with or looks at.
#pragma once

namespace softgpu {

enum Code : int {
    kSuccess = 0,
    kInvalidValue = 1,
    kOutOfMemory = 2,
    kNotInitialized = 3,
    kNoDevice = 100,
    kInvalidDevice = 101,
    kInvalidContext = 201,
    kNoBinaryForGpu = 209,
    kUnsupportedLimit = 215,
    kUnsupportedPtxVersion = 222,
    kInvalidHandle = 400,
    kNotFound = 500,
    kNotReady = 600,
    kIllegalAddress = 700,
    kLaunchOutOfResources = 701,
    kPeerAccessAlreadyEnabled = 704,
    kPeerAccessNotEnabled = 705,
    kMisalignedAddress = 716,
    kLaunchFailed = 719,
    kNotSupported = 801,
    kCaptureUnsupported = 900,
    kCaptureInvalidated = 901,
    kCaptureMerge = 902,
    kCaptureUnmatched = 903,
    kCaptureUnjoined = 904,
    kCaptureIsolation = 905,
    kCaptureImplicit = 906,
    kCapturedEvent = 907,
    kCaptureWrongThread = 908,
};

enum EventFlag : unsigned { kDisableTiming = 2 };
enum StreamFlag : unsigned { kNonBlocking = 1 };
enum HostFlag : unsigned { kDeviceMap = 2 };
enum CaptureMode : int { kGlobal = 0, kThreadLocal = 1, kRelaxed = 2 };
enum CaptureStatus : int { kNotCapturing = 0, kCapturing = 1, kInvalidated = 2 };
enum NodeType : int {
    kKernelNode = 0,
    kCopyNode = 1,
    kSetNode = 2,
    kHostNode = 3,
    kWaitNode = 6,
    kRecordNode = 7,
    kBatchNode = 12
};

}  // namespace softgpu
